<?php
// The WordPress plugin, run by php-cli: the functions of WordPress that it calls, and what a visitor and an editor make WordPress do.
// Usage: php wordpress.php PLUGIN SCENE      with PERIGEE_CONTROL, PERIGEE_AUTHORITY and PERIGEE_TOKEN in the environment

declare(strict_types=1);

define('ABSPATH', '/');
foreach (['PERIGEE_CONTROL', 'PERIGEE_AUTHORITY', 'PERIGEE_TOKEN'] as $name) {
    define($name, getenv($name));
}
$actions = [];

function add_action(string $hook, callable $call, int $priority = 10, int $arguments = 1): void {
    global $actions;
    $actions[$hook][] = [$call, $arguments];
}

function do_action(string $hook, ...$arguments): void {
    global $actions;
    foreach ($actions[$hook] ?? [] as [$call, $count]) {
        $call(...array_slice($arguments, 0, $count));
    }
}

class WP_Error {
    private $message;
    public function __construct(string $message) { $this->message = $message; }
    public function get_error_message(): string { return $this->message; }
}
function is_wp_error($value): bool { return $value instanceof WP_Error; }
function wp_is_post_revision(int $id): bool { return false; }
function is_singular(): bool { return true; }

// As WordPress does it: the certificate has to be by the authority and for the name.
function wp_remote_post(string $url, array $arguments) {
    $headers = '';
    foreach ($arguments['headers'] as $name => $value) {
        $headers .= "$name: $value\r\n";
    }
    $context = stream_context_create([
        'http' => ['method' => 'POST', 'header' => $headers, 'content' => $arguments['body'], 'timeout' => $arguments['timeout'], 'ignore_errors' => true],
        'ssl' => ['cafile' => $arguments['sslcertificates'], 'verify_peer' => true, 'verify_peer_name' => true],
    ]);
    $body = @file_get_contents($url, false, $context);
    if ($body === false) {
        return new WP_Error(error_get_last()['message'] ?? 'no answer');
    }
    preg_match('{^HTTP/\S+ (\d+)}', $http_response_header[0], $status);
    return ['code' => (int) $status[1], 'body' => $body];
}
function wp_remote_retrieve_response_code(array $answer): int { return $answer['code']; }
function wp_remote_retrieve_body(array $answer): string { return $answer['body']; }

require $argv[1];
$post = (object) ['ID' => 17];
switch ($argv[2]) {
    case 'keys':
        echo implode(' ', perigee_keys([$post, (object) ['ID' => 18]], true)), "\n";
        break;
    case 'draft':
        do_action('transition_post_status', 'draft', 'auto-draft', $post);
        break;
    case 'change':
        do_action('transition_post_status', 'publish', 'publish', $post);
        break;
    case 'delete':
        do_action('deleted_post', 17, $post);
        break;
    case 'theme':
        do_action('switch_theme', 'new');
        break;
}
do_action('shutdown');
