<?php
/**
 * Plugin Name: Purge Perigee on change
 * Description: Purges a post's pages from a Perigee CDN when it is published, changed or removed, and everything when the theme or menus change.
 * Version: 0.1.0
 * License: Apache-2.0
 * Requires PHP: 7.4
 *
 * In wp-config.php, for a cluster:
 *
 *     define('PERIGEE_CONTROL', 'https://control-1.example:7700');
 *     define('PERIGEE_AUTHORITY', '/etc/perigee/ca.pem');     // of control's state directory; nothing else is believed
 *     define('PERIGEE_TOKEN', 'pgt_…');
 *
 * or, for one edge on this machine: define('PERIGEE_ADMIN', 'http://127.0.0.1:9090'), and PERIGEE_TOKEN. PERIGEE_SITE limits purges of keys and of everything
 * to one site.
 *
 * Each page says which keys it has (Surrogate-Key: post-17 home), so a change purges one key, whatever lists the post stands in.
 */

defined('ABSPATH') || exit;

/** Surrogate keys of what is shown: the post itself, or each post of a list. */
function perigee_keys(array $posts, bool $is_list): array {
    $keys = array_map(static fn($post) => 'post-' . (int) $post->ID, $posts);
    if ($is_list) {
        $keys[] = 'lists';
    }
    return array_values(array_unique($keys));
}

function perigee_send_keys(): void {
    global $wp_query;
    if (headers_sent() || empty($wp_query->posts)) {
        return;
    }
    header('Surrogate-Key: ' . implode(' ', perigee_keys($wp_query->posts, !is_singular())));
}

/** What has to be purged, gathered while a request runs and sent once at its end. */
function perigee_pending(?array $tags = null): array {
    static $pending = [];
    $before = $pending;
    $pending = $tags === null ? [] : array_values(array_unique(array_merge($pending, $tags)));
    return $before;
}

/** A post that was or is public has changed: its pages, and the lists in which it may stand. */
function perigee_post_changed(string $new, string $old, $post): void {
    if (($new === 'publish' || $old === 'publish') && !wp_is_post_revision($post->ID)) {
        perigee_pending(['post-' . (int) $post->ID, 'lists']);
    }
}

function perigee_post_deleted(int $id): void {
    perigee_pending(['post-' . $id, 'lists']);
}

function perigee_all_changed(): void {
    perigee_pending(['*']);
}

function perigee_flush(): void {
    $tags = perigee_pending();
    if (!$tags) {
        return;
    }
    $body = in_array('*', $tags, true) ? ['everything' => true] : ['tags' => $tags];
    if (defined('PERIGEE_SITE')) {
        unset($body['everything']);
        $body['site'] = PERIGEE_SITE;
    }
    perigee_purge($body);
}

/** Asks the CDN. A failure stops nothing: it is written to the error log, and pages end with their TTL. */
function perigee_purge(array $body): bool {
    $is_cluster = defined('PERIGEE_CONTROL');
    $url = $is_cluster ? PERIGEE_CONTROL . '/v1/purges' : (defined('PERIGEE_ADMIN') ? PERIGEE_ADMIN : 'http://127.0.0.1:9090') . '/v1/purge';
    if ($is_cluster) {
        $body['reason'] = 'changed in WordPress';
    }
    $arguments = [
        'method' => 'POST',
        'timeout' => 5,
        'headers' => ['Authorization' => 'Bearer ' . (defined('PERIGEE_TOKEN') ? PERIGEE_TOKEN : ''), 'Content-Type' => 'application/json'],
        'body' => json_encode($body),
    ];
    if ($is_cluster && defined('PERIGEE_AUTHORITY')) {
        $arguments['sslcertificates'] = PERIGEE_AUTHORITY;
    }
    $answer = wp_remote_post($url, $arguments);
    if (is_wp_error($answer)) {
        error_log('perigee: ' . $url . ': ' . $answer->get_error_message());
        return false;
    }
    $status = (int) wp_remote_retrieve_response_code($answer);
    if ($status < 200 || $status >= 300) {
        error_log('perigee: ' . $url . ' answered ' . $status . ': ' . wp_remote_retrieve_body($answer));
        return false;
    }
    return true;
}

add_action('template_redirect', 'perigee_send_keys');
add_action('transition_post_status', 'perigee_post_changed', 10, 3);
add_action('deleted_post', 'perigee_post_deleted');
add_action('switch_theme', 'perigee_all_changed');
add_action('wp_update_nav_menu', 'perigee_all_changed');
add_action('customize_save_after', 'perigee_all_changed');
add_action('shutdown', 'perigee_flush');
