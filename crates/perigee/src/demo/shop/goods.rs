//! What the shop sells.

use super::photo::Pot;

/// Something on the shelf.
#[derive(Debug)]
pub(in crate::demo) struct Product {
    /// From 1; also its surrogate key, `product-17`.
    pub(in crate::demo) number: usize,
    /// What it is called.
    pub(in crate::demo) name: String,
    /// What is said of it.
    pub(super) words: &'static str,
    /// What it costs at first, in cents.
    pub(super) cents: u64,
    pub(super) pot: Pot,
}

struct Form {
    name: &'static str,
    words: &'static str,
    radii: [f32; 6],
    height: f32,
    has_handle: bool,
    cents: u64,
}

const FORMS: &[Form] = &[
    Form {
        name: "Tall vase",
        words: "Thrown in one piece, for three branches and no more.",
        radii: [0.17, 0.25, 0.31, 0.27, 0.12, 0.17],
        height: 1.02,
        has_handle: false,
        cents: 8900,
    },
    Form {
        name: "Bowl",
        words: "Wide enough for a salad, deep enough for soup.",
        radii: [0.2, 0.34, 0.45, 0.52, 0.56, 0.58],
        height: 0.42,
        has_handle: false,
        cents: 4400,
    },
    Form {
        name: "Mug",
        words: "A handle for the whole hand. It keeps tea warm for as long as you should take for it.",
        radii: [0.27, 0.3, 0.3, 0.29, 0.28, 0.29],
        height: 0.66,
        has_handle: true,
        cents: 2900,
    },
    Form {
        name: "Jug",
        words: "Pours without a drop beside.",
        radii: [0.23, 0.33, 0.36, 0.28, 0.19, 0.22],
        height: 0.86,
        has_handle: true,
        cents: 5900,
    },
    Form {
        name: "Bottle",
        words: "For oil, or for a single flower.",
        radii: [0.2, 0.27, 0.25, 0.12, 0.08, 0.11],
        height: 0.98,
        has_handle: false,
        cents: 4900,
    },
    Form {
        name: "Planter",
        words: "Fired hot, so that frost is nothing to it.",
        radii: [0.26, 0.34, 0.4, 0.43, 0.44, 0.47],
        height: 0.64,
        has_handle: false,
        cents: 6900,
    },
];

const GLAZES: &[(&str, [f32; 3])] = &[
    ("celadon", [0.36, 0.55, 0.42]),
    ("cobalt", [0.07, 0.14, 0.5]),
    ("ember", [0.62, 0.17, 0.06]),
    ("chalk", [0.82, 0.79, 0.71]),
];

/// Everything: each form in each glaze.
pub(super) fn all() -> Vec<Product> {
    let pairs = GLAZES.iter().flat_map(|glaze| FORMS.iter().map(move |form| (form, glaze)));
    let make = |(index, (form, (glaze, colour))): (usize, (&Form, &(&str, [f32; 3])))| Product {
        number: index + 1,
        name: format!("{}, {glaze}", form.name),
        words: form.words,
        cents: form.cents + 100 * (index as u64 / 6),
        pot: Pot {
            radii: form.radii,
            height: form.height,
            has_handle: form.has_handle,
            glaze: *colour,
            seed: index as u64 + 1,
        },
    };
    pairs.enumerate().map(make).collect()
}
