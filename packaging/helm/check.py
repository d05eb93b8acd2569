"""Lints the Helm chart, renders it in the ways in which it is meant to be used, and has the binary check each configuration in it.
Prints `ok …` or `not ok …` for each. Usage: check.py PERIGEE      needs the packages of packaging/requirements.txt; called by packaging/check."""

import os
import subprocess
import sys
import tempfile

import helm_python as helm
import yaml

CHART = os.path.join(os.path.dirname(os.path.abspath(__file__)), "perigee")
POPS = [{"name": "fra", "replicas": 2, "tokenSecret": "join-fra", "nodeSelector": {"zone": "a"}}, {"name": "iad", "tokenSecret": "join-iad"}]
ETCD = {"etcd": {"endpoints": ["https://etcd-0:2379"]}, "names": ["control.example"]}
TLS = '[[certificate]]\nchain = "/etc/tls/tls.crt"\nkey = "/etc/tls/tls.key"\n'
WAYS = {
    "as it comes": {},
    "a whole cluster": {"pops": POPS, "router": {"enabled": True, "replicas": 2, "locationClaim": "location"}},
    "with etcd, TLS and disks": {"control": ETCD, "pops": POPS, "edge": {"tls": True, "disk": "80GiB", "extra": TLS, "storageClass": "ssd"}},
    "edges alone": {"control": {"enabled": False}, "join": {"control": ["https://control.example:7700"]}, "pops": POPS,
                    "edge": {"service": {"type": "ClusterIP"}}},
}


def merged(base, more):
    both = dict(base)
    for key, value in more.items():
        both[key] = merged(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict) else value
    return both


def accepts(perigee, name, text):
    """What the binary says of a configuration file of the chart; nothing if it is good."""
    if "/var/lib/perigee/control" in text:
        arguments = ["control", "--check", "--config"]
    elif "[edge]" in text:
        arguments = ["check", "--elsewhere", "--node"]
    else:
        return ""  # a router's file is read when it starts, and by nothing else
    with tempfile.NamedTemporaryFile("w", suffix=name) as file:
        file.write(text)
        file.flush()
        said = subprocess.run([perigee, *arguments, file.name], capture_output=True, text=True)
    return "" if said.returncode == 0 else said.stdout + said.stderr


def wrong_in(perigee, documents):
    """What would not work: the first thing found."""
    named = {(one["kind"], one["metadata"]["name"]) for one in documents}
    if len(named) != len(documents):
        return "two objects of one name"
    for one in documents:
        if one["kind"] == "ConfigMap":
            for name, text in one["data"].items():
                said = accepts(perigee, name, text)
                if said:
                    return f"{name}: {said}\n{text}"
        if one["kind"] != "StatefulSet":
            continue
        spec, pod = one["spec"], one["spec"]["template"]["spec"]
        labels = one["spec"]["template"]["metadata"]["labels"]
        if not spec["selector"]["matchLabels"].items() <= labels.items():
            return f"{one['metadata']['name']} does not select its own pods"
        volumes = {volume["name"] for volume in pod["volumes"]} | {claim["metadata"]["name"] for claim in spec["volumeClaimTemplates"]}
        for container in pod["containers"]:
            mounts = {mount["name"] for mount in container["volumeMounts"]}
            if not mounts <= volumes:
                return f"{one['metadata']['name']} mounts {mounts - volumes}, which it does not have"
            security = container["securityContext"]
            if not (security["readOnlyRootFilesystem"] and security["capabilities"] == {"drop": ["ALL"]} and pod["securityContext"]["runAsNonRoot"]):
                return f"{one['metadata']['name']} may do more than it must"
        services = [service for service in documents if service["kind"] == "Service" and service["metadata"]["name"] == spec["serviceName"]]
        if len(services) != 1 or not services[0]["spec"]["selector"].items() <= labels.items():
            return f"{one['metadata']['name']} has no Service that leads to it"
        ports = {port["name"] for port in pod["containers"][0]["ports"]}
        for port in services[0]["spec"]["ports"]:
            if port["targetPort"] not in ports:
                return f"{services[0]['metadata']['name']}: no container has the port {port['targetPort']}"
    return None


def main(perigee):
    failed = 0

    def say(name, wrong):
        nonlocal failed
        failed += bool(wrong)
        print(f"{'not ok' if wrong else 'ok'} {name}")
        if wrong:
            print("  " + str(wrong).replace("\n", "\n  "))

    lint = helm.lint(CHART)
    # An icon is for galleries.
    found = [str(one) for one in [*lint["messages"], *lint["errors"]] if "icon is recommended" not in str(one)]
    say("helm lint finds nothing in the chart", "\n".join(found))
    with helm.Chart.load(CHART) as chart:
        for way, more in WAYS.items():
            try:
                texts = chart.render(merged(chart.values, more), name="perigee", namespace="cdn")
                documents = [one for path, text in texts.items() if path.endswith(".yaml") for one in yaml.safe_load_all(text) if one]
                say(f"the chart renders, {way}", wrong_in(perigee, documents) if documents else "it renders to nothing")
            except (helm.HelmError, yaml.YAMLError) as error:
                say(f"the chart renders, {way}", error)
        try:
            chart.validate_schema(merged(chart.values, {"pops": [{"name": "Not A Name"}]}))
            say("values that make no sense are refused", "they were taken")
        except helm.HelmError:
            say("values that make no sense are refused", None)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
