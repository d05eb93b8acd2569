//! What to paste where, to put a site of some stack behind Perigee, and the rules that belong to it.

/// How a site is put behind the edge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// All of it: its name leads to the edge, and no URL changes.
    #[default]
    WholeSite,
    /// Its static files alone, under a host of their own.
    AssetHost,
}

/// The hosts of a site.
#[derive(Clone, Debug)]
pub struct Hosts {
    /// What visitors type: `www.shop.example`.
    pub site: String,
    /// Where static files come from in [`Mode::AssetHost`].
    pub cdn: String,
    /// Where the edge fetches from: `https://origin.shop.example`.
    pub origin: String,
}

/// A kind of site.
#[derive(Clone, Copy, Debug)]
pub struct Stack {
    /// What it is called on the command line.
    pub name: &'static str,
    /// What it is called.
    pub title: &'static str,
    /// Which file, and the lines, when all of it is behind the edge.
    whole: (&'static str, &'static str),
    /// The same when static files come from another host.
    assets: (&'static str, &'static str),
    /// What a setting does not move or breaks, and what to do.
    traps: &'static [&'static str],
    /// Paths of files that are named by their content.
    versioned: &'static [&'static str],
    /// Paths of files that may change under their name.
    files: &'static [&'static str],
    /// Paths that are not cached, whatever the site says.
    private: &'static [&'static str],
    /// Cookies of visitors who get pages of their own.
    cookies: &'static [&'static str],
    /// More lines of the site, in TOML.
    site: &'static str,
    /// Whether the edge rewrites pages in [`Mode::AssetHost`], for want of a setting.
    rewrites: bool,
}

impl Stack {
    /// All that are known.
    pub fn all() -> &'static [Stack] {
        STACKS
    }

    /// The one with this name.
    pub fn named(name: &str) -> Option<&'static Stack> {
        STACKS.iter().find(|stack| stack.name == name)
    }

    /// The file to change, and what to paste there.
    pub fn snippet(&self, mode: Mode, hosts: &Hosts) -> (&'static str, String) {
        let (file, lines) = match mode {
            Mode::WholeSite => self.whole,
            Mode::AssetHost => self.assets,
        };
        (file, filled(lines, hosts))
    }

    /// What the lines do not move or break.
    pub fn traps(&self) -> &'static [&'static str] {
        self.traps
    }

    /// A configuration of the edge that fits, with tests of its own rules.
    pub fn rules(&self, mode: Mode, hosts: &Hosts) -> String {
        let Hosts { site, cdn, origin } = hosts;
        let has_pages = mode == Mode::WholeSite || self.rewrites;
        let domains = match mode {
            Mode::WholeSite => format!("\"{site}\""),
            // Pages come through the edge to be rewritten; with a setting of the stack only files do.
            Mode::AssetHost if self.rewrites => format!("[\"{site}\", \"{cdn}\"]"),
            Mode::AssetHost => format!("\"{cdn}\""),
        };
        let mut text =
            format!("[[site]]\nname = \"{}\"\ndomains = {domains}\norigin = \"{origin}\"\n", self.name);
        if mode == Mode::AssetHost {
            text += "# Applications know their own name alone, and answer 400 to others.\n";
            text += &format!("origin_options = {{ host = \"{site}\" }}\n");
        }
        if has_pages {
            text += self.site;
        }
        if mode == Mode::AssetHost && self.rewrites {
            text += &format!("rewrite = {{ host = \"{cdn}\" }}\n");
        }
        let mut tests = String::new();
        let file_host = if mode == Mode::AssetHost { cdn } else { site };
        let mut rule = |name: &str, conditions: &str, lines: &str, test: Option<(&str, String, &str)>| {
            text += &format!("\n[[site.rule]]\nname = \"{name}\"\n{conditions}{lines}");
            if let Some((host, get, expected)) = test {
                tests += &format!(
                    "\n[[site.test]]\nget = \"{get}\"\nhost = \"{host}\"\nexpect = {{ rule = \"{name}\", {expected} }}\n"
                );
            }
        };
        let kept = "request_cookies = \"none\"\nset_cookie = \"strip\"\n";
        if has_pages && !self.private.is_empty() {
            let test = Some((&**site, example(self.private), "cache = false"));
            rule("private", &paths(self.private), "cache = false\n", test);
        }
        if !self.versioned.is_empty() {
            let lines = format!("ttl = \"1y\"\nbrowser_ttl = \"1y\"\n{kept}");
            let test = Some((&**file_host, example(self.versioned), "ttl = \"1y\", browser_ttl = \"1y\""));
            rule("versioned", &paths(self.versioned), &lines, test);
        }
        if !self.files.is_empty() {
            let lines = format!(
                "ttl = \"30d\"\nbrowser_ttl = \"1h\"\nstale_while_revalidate = \"1d\"\nstale_if_error = \"7d\"\n{kept}"
            );
            let test = Some((&**file_host, example(self.files), "ttl = \"30d\", browser_ttl = \"1h\""));
            rule("files", &paths(self.files), &lines, test);
        }
        if mode == Mode::AssetHost {
            // No page is to be found twice.
            let back = format!("redirect = {{ to = \"https://{site}{{path}}{{query}}\" }}\n");
            let expected = format!("redirect = \"https://{site}/a-page\"");
            rule(
                "pages",
                &format!("hosts = \"{cdn}\"\n"),
                &back,
                Some((&**cdn, "/a-page".to_owned(), &*expected)),
            );
        }
        if has_pages {
            for cookie in self.cookies {
                // A name that ends in something of the visitor's is found in the field as a whole.
                let conditions = match cookie.strip_suffix('*') {
                    Some(_) => format!("with_header = {{ Cookie = \"*{cookie}\" }}\n"),
                    None => format!("with_cookie = {{ \"{cookie}\" = true }}\n"),
                };
                let name = format!("with-{}", cookie.trim_end_matches(['*', '_']));
                rule(&name, &conditions, "cache = false\n", None);
            }
        }
        text + &tests
    }
}

fn paths(paths: &[&str]) -> String {
    let quoted: Vec<String> = paths.iter().map(|path| format!("\"{path}\"")).collect();
    format!("path = [{}]\n", quoted.join(", "))
}

/// A path that the first pattern matches.
fn example(paths: &[&str]) -> String {
    let path = paths.first().copied().unwrap_or("/");
    match path.strip_prefix('*') {
        Some(ending) => format!("/a{ending}"),
        None => path.strip_suffix('*').unwrap_or(path).to_owned(),
    }
}

fn filled(lines: &str, hosts: &Hosts) -> String {
    lines.replace("{site}", &hosts.site).replace("{cdn}", &hosts.cdn).replace("{origin}", &hosts.origin)
}

/// Endings of files, where no directory holds them all.
const BY_ENDING: &[&str] = &[
    "*.css", "*.js", "*.mjs", "*.png", "*.jpg", "*.jpeg", "*.gif", "*.webp", "*.avif", "*.svg", "*.ico",
    "*.woff", "*.woff2", "*.ttf", "*.mp4", "*.webm", "*.mp3",
];

const STACKS: &[Stack] = &[
    Stack {
        name: "django",
        title: "Django, Wagtail, django-oscar",
        whole: (
            "settings.py",
            "ALLOWED_HOSTS = [\"{site}\"]\nCSRF_TRUSTED_ORIGINS = [\"https://{site}\"]\nSECURE_PROXY_SSL_HEADER = (\"HTTP_X_FORWARDED_PROTO\", \"https\")\nSTORAGES[\"staticfiles\"] = {\"BACKEND\": \"django.contrib.staticfiles.storage.ManifestStaticFilesStorage\"}\n",
        ),
        assets: (
            "settings.py",
            "STATIC_URL = \"https://{cdn}/static/\"\nMEDIA_URL = \"https://{cdn}/media/\"\nSTORAGES[\"staticfiles\"] = {\"BACKEND\": \"django.contrib.staticfiles.storage.ManifestStaticFilesStorage\"}\n",
        ),
        traps: &[
            "Whoever serves the files must answer to /static/ and /media/ still: WhiteNoise takes its prefix from STATIC_URL (set WHITENOISE_STATIC_PREFIX = \"/static/\").",
            "URLs that scripts put together from \"/static/\" do not move; `rewrite = { inline_scripts = [\"/static/*\"] }` moves those in inline scripts.",
        ],
        versioned: &[],
        files: &["/static/*", "/media/*"],
        private: &["/admin/*", "/accounts/*"],
        cookies: &["sessionid"],
        site: "",
        rewrites: false,
    },
    Stack {
        name: "rails",
        title: "Ruby on Rails",
        whole: (
            "config/environments/production.rb",
            "config.hosts << \"{site}\"\nconfig.assume_ssl = true\nconfig.public_file_server.headers = { \"Cache-Control\" => \"public, max-age=31536000, immutable\" }\n",
        ),
        assets: (
            "config/environments/production.rb",
            "config.asset_host = \"https://{cdn}\"\nconfig.public_file_server.headers = { \"Cache-Control\" => \"public, max-age=31536000, immutable\" }\n",
        ),
        traps: &[
            "Keep the assets of the last releases: pages that are cached still ask for them.",
            "Files in public/ that no asset helper names do not move.",
        ],
        versioned: &["/assets/*", "/packs/*"],
        files: &["/images/*", "/icons/*"],
        private: &["/users/*", "/admin/*"],
        cookies: &[],
        site: "",
        rewrites: false,
    },
    Stack {
        name: "spree",
        title: "Spree Commerce",
        whole: (
            "config/environments/production.rb",
            "config.hosts << \"{site}\"\nconfig.assume_ssl = true\n",
        ),
        assets: (
            "config/environments/production.rb",
            "config.asset_host = \"{cdn}\"\nSpree.cdn_host = \"{cdn}\"\nRails.application.routes.default_url_options[:protocol] = \"https\"\n",
        ),
        traps: &["The hosts are written without https://; the scheme comes from default_url_options."],
        versioned: &["/assets/*"],
        files: &["/rails/active_storage/*"],
        private: &["/cart/*", "/checkout/*", "/account/*", "/admin/*", "/api/*"],
        cookies: &["token"],
        site: "",
        rewrites: false,
    },
    Stack {
        name: "next",
        title: "Next.js",
        whole: (
            "next.config.js",
            "module.exports = {\n  // Compression is the edge's work.\n  compress: false,\n};\n",
        ),
        assets: (
            "next.config.js",
            "module.exports = {\n  assetPrefix: \"https://{cdn}\",\n  compress: false,\n};\n",
        ),
        traps: &[
            "assetPrefix moves /_next/static/ alone: files of public/, /_next/image and /_next/data stay where they are.",
            "Web workers that the bundler makes are loaded from assetPrefix, and browsers refuse workers from another host: leave assetPrefix out, with the whole site behind the edge, if you have some.",
            "One URL is a page or data for the router, told apart by request headers: what the site says in Vary has to stay.",
        ],
        versioned: &["/_next/static/*"],
        files: &["/_next/image", "/images/*", "/fonts/*"],
        private: &["/api/*"],
        cookies: &["__prerender_bypass", "next-auth.session-token"],
        site: "",
        rewrites: false,
    },
    Stack {
        name: "laravel",
        title: "Laravel",
        whole: ("bootstrap/app.php, within withMiddleware", "$middleware->trustProxies(at: \"*\");\n"),
        assets: (".env", "ASSET_URL=https://{cdn}\n"),
        traps: &["ASSET_URL moves what asset() and Vite name; paths written into templates stay."],
        versioned: &["/build/assets/*"],
        files: &["/storage/*", "/images/*", "/css/*", "/js/*"],
        private: &["/login", "/register", "/dashboard/*", "/api/*"],
        cookies: &[],
        site: "",
        rewrites: false,
    },
    Stack {
        name: "magento",
        title: "Magento 2, Adobe Commerce",
        whole: (
            "a shell on the server",
            "bin/magento config:set web/secure/base_url https://{site}/\nbin/magento config:set web/secure/offloader_header X-Forwarded-Proto\nbin/magento config:set system/full_page_cache/caching_application 2\nbin/magento cache:flush\n",
        ),
        assets: (
            "a shell on the server",
            "bin/magento config:set web/secure/base_static_url https://{cdn}/static/\nbin/magento config:set web/secure/base_media_url https://{cdn}/media/\nbin/magento cache:flush\n",
        ),
        traps: &[
            "The settings count for one scope: set them for each store view that has its own.",
            "Fonts and RequireJS modules need Access-Control-Allow-Origin, which the edge adds to static types by itself.",
        ],
        versioned: &["/static/version*"],
        files: &["/static/*", "/media/*"],
        private: &["/checkout/*", "/customer/*", "/admin/*", "/rest/*", "/graphql"],
        cookies: &["PHPSESSID"],
        site: "key = { cookies = [\"X-Magento-Vary\"] }\nresponse_headers = { remove = [\"X-Magento-Tags\"] }\n",
        rewrites: false,
    },
    Stack {
        name: "woocommerce",
        title: "WooCommerce",
        whole: (
            "wp-config.php, before \"stop editing\"",
            "if (($_SERVER['HTTP_X_FORWARDED_PROTO'] ?? '') === 'https') { $_SERVER['HTTPS'] = 'on'; }\ndefine('WP_HOME', 'https://{site}');\ndefine('WP_SITEURL', 'https://{site}');\n",
        ),
        assets: (
            "wp-config.php, before \"stop editing\"",
            "// Pages come through the edge, which moves their files: nothing is to be set here but this.\nif (($_SERVER['HTTP_X_FORWARDED_PROTO'] ?? '') === 'https') { $_SERVER['HTTPS'] = 'on'; }\n",
        ),
        traps: &[
            "A cart that is shown on every page is fetched by script; a page that shows it itself must not be cached.",
        ],
        versioned: &[],
        files: &["/wp-content/*", "/wp-includes/*"],
        private: &["/wp-admin/*", "/wp-login.php", "/wp-json/*", "/cart/*", "/checkout/*", "/my-account/*"],
        cookies: &["woocommerce_items_in_cart", "wordpress_logged_in_*"],
        site: "",
        rewrites: true,
    },
    Stack {
        name: "wordpress",
        title: "WordPress",
        whole: (
            "wp-config.php, before \"stop editing\"",
            "if (($_SERVER['HTTP_X_FORWARDED_PROTO'] ?? '') === 'https') { $_SERVER['HTTPS'] = 'on'; }\ndefine('WP_HOME', 'https://{site}');\ndefine('WP_SITEURL', 'https://{site}');\n",
        ),
        assets: (
            "wp-config.php, before \"stop editing\"",
            "// Pages come through the edge, which moves their files: nothing is to be set here but this.\nif (($_SERVER['HTTP_X_FORWARDED_PROTO'] ?? '') === 'https') { $_SERVER['HTTPS'] = 'on'; }\n",
        ),
        traps: &["Turn off what other plugins rewrite URLs: two that do it undo each other."],
        versioned: &[],
        files: &["/wp-content/*", "/wp-includes/*"],
        private: &["/wp-admin/*", "/wp-login.php", "/wp-json/*"],
        cookies: &["wordpress_logged_in_*", "comment_author_*"],
        site: "",
        rewrites: true,
    },
    Stack {
        name: "nginx",
        title: "nginx before an application",
        whole: (
            "the server block",
            "server_name {site};\nset_real_ip_from 192.0.2.10;   # the edge\nreal_ip_header X-Forwarded-For;\n",
        ),
        assets: (
            "the server block",
            "# Pages come through the edge, which moves their files. sub_filter has to go: it does not know integrity, and runs once.\nserver_name {site};\nset_real_ip_from 192.0.2.10;   # the edge\nreal_ip_header X-Forwarded-For;\n",
        ),
        traps: &["gzip may stay on: the edge asks for plain pages where it rewrites them."],
        versioned: &[],
        files: BY_ENDING,
        private: &[],
        cookies: &[],
        site: "",
        rewrites: true,
    },
    Stack {
        name: "static",
        title: "Files made beforehand (Hugo, Jekyll, Eleventy, Astro)",
        whole: ("nothing", "# Nothing is to be set: let the site's name lead to the edge.\n"),
        assets: (
            "where the site is made, as its last step",
            "perigee rewrite public/ --cdn https://{cdn} --site https://{site} --out deploy/\n",
        ),
        traps: &["`perigee rewrite --dry-run` says what would be left, and why."],
        versioned: &["/_astro/*"],
        files: BY_ENDING,
        private: &[],
        cookies: &[],
        site: "",
        rewrites: false,
    },
];

#[cfg(test)]
mod tests {
    use model::Snapshot;

    use super::*;

    #[test]
    fn the_rules_of_each_stack_are_good_and_their_tests_hold() {
        let hosts = Hosts {
            site: "www.shop.example".into(),
            cdn: "cdn.shop.example".into(),
            origin: "https://origin.shop.example".into(),
        };
        for stack in Stack::all() {
            for mode in [Mode::WholeSite, Mode::AssetHost] {
                let rules = stack.rules(mode, &hosts);
                let parsed = Snapshot::parse(&rules, stack.name);
                assert_eq!(parsed.diagnostics, [], "{rules}");
                let snapshot = parsed.snapshot.unwrap();
                assert_eq!(snapshot.run_tests(), [], "{rules}");
                assert!(snapshot.test_count() > 0, "{rules}");
                let (_, lines) = stack.snippet(mode, &hosts);
                assert!(!lines.contains("{site}") && !lines.contains("{cdn}"), "{lines}");
            }
        }
    }

    #[test]
    fn stacks_have_names_of_their_own() {
        for stack in Stack::all() {
            assert!(std::ptr::eq(Stack::named(stack.name).unwrap(), stack), "{}", stack.name);
        }
    }
}
