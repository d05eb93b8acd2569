use super::*;

struct Scratch(StateDir);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("perigee-state-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Scratch(StateDir(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0.0);
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn the_directory_is_the_chosen_one_else_xdg_else_home() {
    let check = |chosen: Option<&str>, xdg: Option<&str>, home: Option<&str>, wanted: Option<&str>| {
        let variable = |name: &str| match name {
            "XDG_STATE_HOME" => xdg.map(PathBuf::from),
            _ => home.map(PathBuf::from),
        };
        let found = StateDir::find(chosen.map(PathBuf::from), variable).ok().map(|dir| dir.0);
        assert_eq!(found, wanted.map(PathBuf::from), "{chosen:?} {xdg:?} {home:?}");
    };
    check(Some("here"), Some("/x"), Some("/h"), Some("here"));
    check(None, Some("/x"), Some("/h"), Some("/x/perigee"));
    check(None, Some("relative"), Some("/h"), Some("/h/.local/state/perigee"));
    check(None, None, Some("/h"), Some("/h/.local/state/perigee"));
    check(None, None, None, None);
}

#[test]
fn secrets_are_private_made_once_and_kept() {
    let Scratch(dir) = &Scratch::new("kept");
    dir.create().unwrap();
    let (token, seed) = (dir.token().unwrap(), dir.key_seed().unwrap());
    assert_eq!(token.len(), 64);
    assert_ne!(seed, [0; 16]);
    assert_eq!((dir.token().unwrap(), dir.key_seed().unwrap()), (token.clone(), seed));
    assert_eq!(dir.existing_token().unwrap(), token);
    assert_eq!(mode(&dir.0), 0o700);
    assert_eq!(mode(&dir.token_path()), 0o600);
    assert_eq!(mode(&dir.0.join(SEED_FILE)), 0o600);
    assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 2, "nothing temporary is left");
}

#[test]
fn two_directories_have_different_secrets() {
    let (Scratch(one), Scratch(two)) = (&Scratch::new("one"), &Scratch::new("two"));
    one.create().unwrap();
    two.create().unwrap();
    assert_ne!(one.token().unwrap(), two.token().unwrap());
}

#[test]
fn a_token_that_others_may_read_is_refused() {
    let Scratch(dir) = &Scratch::new("open");
    dir.create().unwrap();
    dir.token().unwrap();
    fs::set_permissions(dir.token_path(), PermissionsExt::from_mode(0o644)).unwrap();
    let failure = dir.token().unwrap_err().to_string();
    assert!(failure.contains("has mode 0644") && failure.contains("chmod 600"), "{failure}");
}

#[test]
fn a_damaged_token_is_an_error_and_stays() {
    let Scratch(dir) = &Scratch::new("damaged");
    dir.create().unwrap();
    for text in ["", "abc\n", &"g".repeat(64), &"A".repeat(64)] {
        let _ = fs::remove_file(dir.token_path());
        write_new(&dir.token_path(), text.as_bytes()).unwrap();
        let failure = dir.token().unwrap_err().to_string();
        assert!(failure.contains("wanted 64 hex digits"), "{failure}");
        assert_eq!(fs::read_to_string(dir.token_path()).unwrap(), text);
    }
}

#[test]
fn a_missing_token_says_how_to_get_one() {
    let Scratch(dir) = &Scratch::new("missing");
    let failure = dir.existing_token().unwrap_err().to_string();
    assert!(failure.contains("admin-token") && failure.contains("perigee serve"), "{failure}");
}

#[test]
fn the_admin_address_is_found_again() {
    let Scratch(dir) = &Scratch::new("address");
    assert_eq!(dir.admin_address(), None);
    dir.create().unwrap();
    for port in [9090, 9191] {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        dir.note_admin_address(address).unwrap();
        assert_eq!(dir.admin_address(), Some(address));
    }
}

#[test]
fn a_directory_serves_one_edge_at_a_time() {
    let Scratch(dir) = &Scratch::new("lock");
    dir.create().unwrap();
    let lock = dir.lock().unwrap();
    let refused = dir.lock().unwrap_err().to_string();
    assert!(refused.contains(&dir.0.display().to_string()) && refused.contains("--state DIR"), "{refused}");
    drop(lock);
    assert!(dir.lock().is_ok(), "the next start takes it, though the file is there");
    assert_eq!(mode(&dir.0.join(LOCK_FILE)), 0o600);
}
