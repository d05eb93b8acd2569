//! The shop's pages. Those that are for everybody say nothing of who is looking.

use website::html::escape;

use super::goods::Product;

/// What a page is made around: title and content, in HTML.
fn page(title: &str, content: &str) -> String {
    format!(
        r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/static/style.css">
<script src="/static/shop.js" defer></script>
</head>
<body>
<header>
<a href="/"><img src="/static/logo.svg" alt="Far Shore Pottery" width="168" height="40"></a>
<nav><a href="/login">Log in</a> <a id="me" href="/cart">Cart</a></nav>
</header>
<main>
{content}
</main>
<footer>A shop that does not exist, in Auckland. Its photos are drawn by a program, its pots are not for sale.</footer>
</body>
</html>
"#
    )
}

/// In dollars.
pub(in crate::demo) fn dollars(cents: u64) -> String {
    format!("${}.{:02}", cents / 100, cents % 100)
}

/// A price as each page shows it. Whoever checks whether an old one is seen looks for this.
pub(in crate::demo) fn price(number: usize, cents: u64) -> String {
    format!(
        "<span class=\"price\" data-product=\"{number}\" data-cents=\"{cents}\">{}</span>",
        dollars(cents)
    )
}

/// The price of a product on a page, in cents; `None` where the page doesn't show it.
pub(in crate::demo) fn price_on(page: &str, number: usize) -> Option<u64> {
    let (_, rest) = page.split_once(&format!("data-product=\"{number}\" data-cents=\""))?;
    rest.split_once('"')?.0.parse().ok()
}

/// The shelf, with everything on it.
pub(super) fn home(goods: &[Product], cents: impl Fn(usize) -> u64) -> String {
    let one = |product: &Product| {
        let Product { number, name, .. } = product;
        format!(
            "<li><a href=\"/products/{number}\"><img src=\"/photos/{number}-small.png\" alt=\"\" width=\"160\" height=\"160\" \
             loading=\"lazy\"><span>{name}</span> {}</a></li>\n",
            price(*number, cents(*number))
        )
    };
    let shelf: String = goods.iter().map(one).collect();
    page(
        "Far Shore Pottery",
        &format!("<h1>Pots from the far shore</h1>\n<ul class=\"shelf\">\n{shelf}</ul>"),
    )
}

/// One product.
pub(super) fn product(product: &Product, cents: u64) -> String {
    let Product { number, name, words, .. } = product;
    let price = price(*number, cents);
    page(
        &format!("{name} · Far Shore Pottery"),
        &format!(
            r#"<div class="product">
<img src="/photos/{number}.png" alt="{name}" width="400" height="400">
<div>
<h1>{name}</h1>
<p>{words}</p>
<p>{price}</p>
<form action="/cart" method="post"><input type="hidden" name="product" value="{number}"><button>Add to cart</button></form>
<p><a href="/">Back to the shelf</a></p>
<video src="/media/shelf.webm" poster="/photos/{number}.png" controls muted preload="none" width="320" height="320"></video>
</div>
</div>"#
        ),
    )
}

/// The form to log in.
pub(super) fn login() -> String {
    page(
        "Log in · Far Shore Pottery",
        r#"<h1>Log in</h1>
<form method="post"><p><label>Your name <input name="name" autocomplete="name" required maxlength="60"></label> <button>Log in</button></p></form>
<p>Any name will do.</p>"#,
    )
}

/// Somebody's cart. For nobody else's eyes.
pub(super) fn cart(name: Option<&str>, items: &[(&Product, u64)]) -> String {
    let whose = match name {
        Some(name) => format!("<span data-name=\"{0}\">{0}</span>’s cart", escape(name)),
        None => "Your cart".to_owned(),
    };
    let row = |(product, cents): &(&Product, u64)| {
        format!("<tr><td>{}</td><td class=\"price\">{}</td></tr>\n", product.name, dollars(*cents))
    };
    let rows: String = items.iter().map(row).collect();
    let total = dollars(items.iter().map(|(_, cents)| cents).sum());
    page(
        "Cart · Far Shore Pottery",
        &format!(
            "<h1>{whose}</h1>\n<table>\n<tr><th>What</th><th class=\"price\">Price</th></tr>\n{rows}\
             <tr><th>Together</th><td class=\"price\">{total}</td></tr>\n</table>\n<p><a href=\"/\">Back to the shelf</a></p>"
        ),
    )
}

/// For what is not there.
pub(super) fn missing() -> String {
    page(
        "Not found · Far Shore Pottery",
        "<h1>There is nothing here</h1>\n<p><a href=\"/\">To the shelf</a></p>",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_found_where_it_is_shown() {
        let goods = super::super::goods::all();
        let shelf = home(&goods, |number| number as u64 * 100);
        assert_eq!(price_on(&shelf, 17), Some(1700));
        assert_eq!(price_on(&shelf, 1), Some(100));
        assert_eq!(price_on(&product(&goods[16], 4250), 17), Some(4250));
        assert_eq!(price_on(&product(&goods[16], 4250), 1), None);
    }

    #[test]
    fn names_are_text_and_nothing_else() {
        assert!(cart(Some("<b>\"&"), &[]).contains("data-name=\"&lt;b&gt;&quot;&amp;\""));
    }
}
