//! `perigee rewrite`: files of a site that is made beforehand, rewritten so that their static files come from another host.
//! All is rewritten beside the files before the first of them is replaced, and each is replaced whole.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use model::glob::Glob;
use model::rewrite::{Rewrite as Settings, origin_of};
use serde_json::{Value, json};
use website::rewrite::{Entry, Left};
use website::{Kind, Page, Report, Rewriter};

use crate::failure::Failure;
use crate::interrupt::{self, unless_interrupted};
use crate::visible;

const EXAMPLES: &str = "\
Examples:
  perigee rewrite public/ --cdn https://cdn.shop.example --site https://www.shop.example --dry-run
  perigee rewrite public/ --cdn https://cdn.shop.example --site https://www.shop.example --out moved/
  perigee rewrite public/index.html --cdn cdn.shop.example --site www.shop.example --paths '/static/*'";

/// URLs that are shown for each reason; all are in the JSON.
const SHOWN_PER_REASON: usize = 10;

/// Bytes that are rewritten at a time.
const PIECE_BYTES: usize = 64 * 1024;

/// `perigee rewrite`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Rewrite {
    /// The site's directory, or one page or style sheet
    path: PathBuf,
    /// Where static files are to come from
    #[arg(long, value_name = "HOST")]
    cdn: String,
    /// Where the site itself is; with a path, that is where PATH is
    #[arg(long, value_name = "URL")]
    site: String,
    /// Write everything there, and leave PATH as it is
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Say what would be changed, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print each URL, what it has become or why it has not, as JSON
    #[arg(long)]
    json: bool,
    /// Paths that move, "*" standing for any part; without, those with the ending of a static file
    #[arg(long, value_name = "PATH")]
    paths: Vec<String>,
    /// Another host whose files move
    #[arg(long, value_name = "HOST=HOST")]
    host: Vec<String>,
    /// Move pictures of previews too (og:image, twitter:image)
    #[arg(long)]
    social_images: bool,
    /// Move files that JSON-LD names
    #[arg(long)]
    structured_data: bool,
    /// Paths that move in strings of inline scripts too
    #[arg(long, value_name = "PATH")]
    inline_scripts: Vec<String>,
}

/// What was done to one file.
struct Done {
    /// Below PATH.
    name: PathBuf,
    report: Report,
    /// Where its new content waits.
    waits: Option<PathBuf>,
}

impl Rewrite {
    /// Rewrites and prints what was changed, and what was left and why.
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime =
            runtime.map_err(|error| Failure::new(format!("the runtime cannot be started: {error}"), ""))?;
        let Some(said) = runtime.block_on(unless_interrupted(self.rewrite()))? else {
            return Ok(ExitCode::from(interrupt::EXIT_CODE));
        };
        crate::print(&said)?;
        Ok(ExitCode::SUCCESS)
    }

    /// What was done. Dropped before its end, it has replaced nothing, and leaves nothing.
    async fn rewrite(&self) -> Result<String, Failure> {
        let settings = Arc::new(self.settings()?);
        let page = self.page()?;
        let metadata =
            fs::symlink_metadata(&self.path).map_err(|error| cannot("read", &self.path, &error))?;
        let (root, names) = match metadata.is_dir() {
            true => {
                let mut names = Vec::new();
                list(&self.path, Path::new(""), &mut names)?;
                names.sort();
                (self.path.clone(), names)
            }
            false => {
                let name = self.path.file_name().map(PathBuf::from).unwrap_or_default();
                if kind_of(&name).is_none() {
                    let message = format!("{} is neither a page nor a style sheet", self.path.display());
                    return Err(Failure::new(
                        message,
                        "name a directory, or a file that ends in .html, .htm or .css",
                    ));
                }
                (self.path.parent().map(Path::to_owned).unwrap_or_default(), vec![name])
            }
        };
        let mut beside = Beside::new(&root, self.out.as_deref(), self.dry_run)?;
        let mut all = Vec::new();
        for name in names {
            // Between two files an interruption is heard; once files are being replaced, no more.
            tokio::task::yield_now().await;
            match kind_of(&name) {
                Some(kind) => {
                    let at = Page { path: path_below(&page.path, &name), ..page.clone() };
                    let (report, waits) =
                        beside.rewrite(&name, |input, out| rewrite_file(&settings, kind, &at, input, out))?;
                    all.push(Done { name, report, waits });
                }
                None => beside.copy(&name)?,
            }
        }
        let replaced = beside.put_in_place(&all)?;
        Ok(if self.json { as_json(&all, replaced) } else { self.as_text(&all, replaced) })
    }

    fn settings(&self) -> Result<Settings, Failure> {
        let globs = |paths: &[String]| paths.iter().map(|path| Glob::new(path)).collect();
        let mut settings = Settings {
            host: host(&self.cdn)?,
            hosts: Vec::new(),
            paths: globs(&self.paths),
            social_images: self.social_images,
            structured_data: self.structured_data,
            inline_scripts: globs(&self.inline_scripts),
            script: false,
        };
        for pair in &self.host {
            let Some((from, to)) = pair.split_once('=') else {
                let message = format!("--host {pair:?} does not say where files of that host move to");
                return Err(Failure::new(message, "write e.g. --host img.shop.example=cdn.shop.example"));
            };
            settings.hosts.push((semantics::key::normalise_host(from).into(), host(to)?));
        }
        Ok(settings)
    }

    /// The page that stands at the root of PATH.
    fn page(&self) -> Result<Page, Failure> {
        let (scheme, rest) = self.site.split_once("://").unwrap_or(("https", &self.site));
        let (authority, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
        host(&format!("{scheme}://{authority}"))?;
        let path = path.rfind('/').map_or("/", |slash| &path[..=slash]).to_owned();
        Ok(Page { secure: scheme == "https", authority: authority.to_owned(), path })
    }

    fn as_text(&self, all: &[Done], replaced: usize) -> String {
        let mut text = String::new();
        for done in all.iter().filter(|done| done.report.changed > 0 || done.report.failed_open) {
            let rest = if done.report.failed_open {
                "; a part of it is too long to be looked at and stays as it is"
            } else {
                ""
            };
            text += &format!(
                "{}: {} changed{rest}\n",
                visible(&done.name.display().to_string()),
                done.report.changed
            );
        }
        let entries = || all.iter().flat_map(|done| done.report.entries.iter());
        for reason in REASONS {
            let of_reason = |entry: &&Entry| entry.outcome == Err(*reason);
            let mut urls: Vec<_> = entries()
                .filter(of_reason)
                .map(|entry| format!("{}  {}", visible(&entry.url), entry.construct))
                .collect();
            urls.sort();
            urls.dedup();
            if !urls.is_empty() {
                text += &format!("left, because {}:\n", reason.as_str());
            }
            for url in urls.iter().take(SHOWN_PER_REASON) {
                text += &format!("  {url}\n");
            }
            if let Some(more @ 1..) = urls.len().checked_sub(SHOWN_PER_REASON) {
                text += &format!("  and {more} more; --json has all\n");
            }
        }
        let changed: u64 = all.iter().map(|done| done.report.changed).sum();
        let files = all.iter().filter(|done| done.report.changed > 0).count();
        let outcome = match (&self.out, self.dry_run) {
            (_, true) => "nothing was written".to_owned(),
            (Some(out), false) => format!("written to {}", out.display()),
            (None, false) => format!("{replaced} files replaced"),
        };
        text + &format!(
            "{changed} URLs in {files} of {} pages and style sheets lead to {}: {outcome}\n",
            all.len(),
            self.cdn
        )
    }
}

/// Why URLs are left, the most surprising first.
const REASONS: &[Left] =
    &[Left::SameOriginOnly, Left::Spelling, Left::Path, Left::NotAsked, Left::Host, Left::Follows];

fn as_json(all: &[Done], replaced: usize) -> String {
    let entry = |entry: &Entry| {
        let mut value = json!({ "in": entry.construct.to_string(), "url": entry.url });
        match &entry.outcome {
            Ok(to) => value["to"] = json!(to),
            Err(left) => value["left"] = json!(left.as_str()),
        }
        value
    };
    let files: Vec<Value> = all
        .iter()
        .map(|done| {
            json!({
                "file": done.name.display().to_string(),
                "changed": done.report.changed,
                "left": done.report.left,
                "failed_open": done.report.failed_open,
                "urls": done.report.entries.iter().map(entry).collect::<Vec<_>>(),
            })
        })
        .collect();
    let changed: u64 = all.iter().map(|done| done.report.changed).sum();
    format!("{:#}\n", json!({ "changed": changed, "replaced": replaced, "files": files }))
}

fn host(text: &str) -> Result<Box<str>, Failure> {
    origin_of(text).ok_or_else(|| {
        Failure::new(
            format!("{text:?} is no host that files can be fetched from"),
            "write e.g. https://cdn.shop.example",
        )
    })
}

fn kind_of(name: &Path) -> Option<Kind> {
    match name.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "html" | "htm" => Some(Kind::Html),
        "css" => Some(Kind::Css),
        _ => None,
    }
}

/// Where a file below the root is on the site: its name, with all encoded that means something in a URL or in a page.
fn path_below(root: &str, name: &Path) -> String {
    let mut path = root.to_owned();
    for byte in name.as_os_str().as_bytes() {
        match byte.is_ascii_alphanumeric() || b"/-._~!$*+,;=:@".contains(byte) {
            true => path.push(char::from(*byte)),
            false => path += &format!("%{byte:02X}"),
        }
    }
    path
}

/// All files below `root`; what a link leads to is not of the site.
fn list(root: &Path, below: &Path, names: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let directory = root.join(below);
    let failed = |error: io::Error| cannot("read", &directory, &error);
    for entry in fs::read_dir(&directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = below.join(entry.file_name());
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() {
            list(root, &name, names)?;
        } else if kind.is_file() {
            names.push(name);
        } else {
            eprintln!(
                "perigee rewrite: {} is no file and is left",
                visible(&root.join(&name).display().to_string())
            );
        }
    }
    Ok(())
}

fn rewrite_file(
    settings: &Arc<Settings>,
    kind: Kind,
    at: &Page,
    input: &[u8],
    out: &mut dyn Write,
) -> io::Result<Report> {
    if input.starts_with(&[0xff, 0xfe]) || input.starts_with(&[0xfe, 0xff]) {
        // UTF-16.
        out.write_all(input)?;
        return Ok(Report { failed_open: true, ..Report::default() });
    }
    let mut rewriter = Rewriter::recording(settings, kind, at);
    let mut changed = Vec::new();
    for piece in input.chunks(PIECE_BYTES) {
        rewriter.push(piece, &mut changed);
        out.write_all(&changed)?;
        changed.clear();
    }
    let report = rewriter.finish(&mut changed);
    out.write_all(&changed)?;
    Ok(report)
}

/// Where new content waits until all of it is there. What waits is removed when it is dropped.
struct Beside<'a> {
    root: &'a Path,
    /// The new directory, and its name until it is whole.
    out: Option<(&'a Path, PathBuf)>,
    dry: bool,
    waiting: Vec<PathBuf>,
}

impl<'a> Beside<'a> {
    fn new(root: &'a Path, out: Option<&'a Path>, dry: bool) -> Result<Self, Failure> {
        let mut beside = Beside { root, out: None, dry, waiting: Vec::new() };
        let Some(out) = out.filter(|_| !dry) else { return Ok(beside) };
        if out.exists() {
            let message = format!("{} is there already", out.display());
            return Err(Failure::new(message, "name a directory that is not there yet, or remove this one"));
        }
        let name = out.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let unfinished = out.with_file_name(format!(".{name}.perigee-{}", std::process::id()));
        fs::create_dir_all(&unfinished).map_err(|error| cannot("make", &unfinished, &error))?;
        beside.out = Some((out, unfinished));
        Ok(beside)
    }

    /// Rewrites a file to where it waits.
    fn rewrite(
        &mut self,
        name: &Path,
        rewrite: impl FnOnce(&[u8], &mut dyn Write) -> io::Result<Report>,
    ) -> Result<(Report, Option<PathBuf>), Failure> {
        let source = self.root.join(name);
        let input = fs::read(&source).map_err(|error| cannot("read", &source, &error))?;
        if self.dry {
            let report =
                rewrite(&input, &mut io::sink()).map_err(|error| cannot("rewrite", &source, &error))?;
            return Ok((report, None));
        }
        let target = self.target(name)?;
        let failed = |error: io::Error| cannot("write", &target, &error);
        let file = fs::File::create(&target).map_err(failed)?;
        self.waiting.push(target.clone());
        let old = fs::metadata(&source).map_err(failed)?;
        let mut writer = io::BufWriter::new(file);
        let report = rewrite(&input, &mut writer).map_err(failed)?;
        let file = writer.into_inner().map_err(|error| failed(error.into_error()))?;
        if self.out.is_none() && report.changed > 0 {
            // Else what root rewrites could no longer be read by the server that it belongs to.
            fchown(&file, Some(old.uid()), Some(old.gid()))
                .map_err(|error| cannot("keep the owner of", &source, &error))?;
        }
        file.set_permissions(old.permissions()).and_then(|()| file.sync_all()).map_err(failed)?;
        Ok((report, Some(target)))
    }

    /// Another file of the site; it is copied to a new directory.
    fn copy(&mut self, name: &Path) -> Result<(), Failure> {
        if self.out.is_none() {
            return Ok(());
        }
        let target = self.target(name)?;
        fs::copy(self.root.join(name), &target).map_err(|error| cannot("write", &target, &error))?;
        Ok(())
    }

    fn target(&self, name: &Path) -> Result<PathBuf, Failure> {
        let Some((_, unfinished)) = &self.out else {
            // Names are bytes: two that look alike must not wait under one.
            let mut hidden = OsString::from(".");
            hidden.push(name.file_name().unwrap_or_default());
            hidden.push(format!(".perigee-{}", std::process::id()));
            return Ok(self.root.join(name).with_file_name(hidden));
        };
        let target = unfinished.join(name);
        let parent = target.parent().unwrap_or(unfinished);
        fs::create_dir_all(parent).map_err(|error| cannot("make", parent, &error))?;
        Ok(target)
    }

    /// Puts what waits where it belongs; how many files were replaced.
    fn put_in_place(mut self, all: &[Done]) -> Result<usize, Failure> {
        if let Some((out, unfinished)) = &self.out {
            fs::rename(unfinished, out).map_err(|error| cannot("write", out, &error))?;
            self.out = None;
            self.waiting.clear();
            return Ok(0);
        }
        let mut replaced = 0;
        for done in all.iter().filter(|done| done.report.changed > 0) {
            if let Some(waits) = &done.waits {
                let target = self.root.join(&done.name);
                fs::rename(waits, &target).map_err(|error| match replaced {
                    0 => cannot("replace", &target, &error),
                    _ => Failure::new(
                        format!(
                            "cannot replace {}: {error}; {replaced} files have been replaced",
                            target.display()
                        ),
                        "mend that and run it again: what has been rewritten is left as it is",
                    ),
                })?;
                replaced += 1;
            }
        }
        Ok(replaced)
    }
}

impl Drop for Beside<'_> {
    fn drop(&mut self) {
        // What cannot be removed is hidden, and named after this process.
        for path in &self.waiting {
            let _ = fs::remove_file(path);
        }
        if let Some((_, unfinished)) = &self.out {
            let _ = fs::remove_dir_all(unfinished);
        }
    }
}

fn cannot(what: &str, path: &Path, error: &io::Error) -> Failure {
    let next = match what {
        "read" => {
            "name a folder or file that is there, and that this user can read; nothing has been changed"
        }
        _ => "nothing has been changed",
    };
    Failure::new(format!("cannot {what} {}: {error}", path.display()), next)
}
