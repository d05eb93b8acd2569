//! x
use website::doctor::*;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let o = Options {
        url: a[1].clone(),
        direct: Some(a[2].parse().unwrap()),
        through: Some(a[3].parse().unwrap()),
        cdn: a.get(4).cloned().filter(|c| !c.is_empty()),
        pages: a.get(5).map_or(1, |n| n.parse().unwrap()),
        ..Options::default()
    };
    let r = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(examine(&o))
        .unwrap();
    print!("{}", as_text(&r, false));
    std::fs::write("/tmp/website-report.html", as_html(&r)).unwrap();
}
