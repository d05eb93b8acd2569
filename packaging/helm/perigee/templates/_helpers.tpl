{{/* What all names begin with. */}}
{{- define "perigee.name" -}}
{{- if contains "perigee" .Release.Name }}{{ .Release.Name | trunc 30 | trimSuffix "-" }}{{ else }}{{ printf "%s-perigee" (.Release.Name | trunc 22 | trimSuffix "-") }}{{ end }}
{{- end }}

{{- define "perigee.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "perigee.labels" -}}
app.kubernetes.io/name: perigee
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{/* Where nodes find control: a TOML list. */}}
{{- define "perigee.control" -}}
{{- if .Values.join.control }}{{ .Values.join.control | toJson }}{{ else }}["https://{{ include "perigee.name" . }}-control.{{ .Release.Namespace }}.svc:7700"]{{ end }}
{{- end }}

{{/* Who a pod runs as, and what it may do: nothing that needs a right. */}}
{{- define "perigee.podSecurity" -}}
automountServiceAccountToken: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: { type: RuntimeDefault }
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "perigee.containerSecurity" -}}
image: {{ include "perigee.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: { drop: [ALL] }
{{- end }}

{{/* The volume of a StatefulSet: a list with its size and class. */}}
{{- define "perigee.claim" -}}
- metadata: { name: state }
  spec:
    accessModes: [ReadWriteOnce]
    {{- with .storageClass }}
    storageClassName: {{ . | quote }}
    {{- end }}
    resources: { requests: { storage: {{ .storage | quote }} } }
{{- end }}
