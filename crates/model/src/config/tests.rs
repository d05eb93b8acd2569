use super::*;

#[test]
fn the_smallest_file_is_a_site_with_an_origin() {
    let text = "[[site]]\nname = \"shop\"\ndomains = \"shop.example\"\norigin = \"https://o.example\"\n";
    let parsed = Snapshot::parse(text, "perigee.toml");
    assert_eq!(parsed.diagnostics, []);
    assert!(parsed.snapshot.is_some_and(|snapshot| snapshot.site_for("shop.example").is_some()));
}
