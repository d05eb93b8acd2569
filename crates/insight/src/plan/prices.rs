//! What a PoP costs where: a table in TOML that people edit.
//!
//! ```toml
//! as_of = "2026-11"
//! source = "our quotes"
//! currency = "EUR"
//! [[price]]
//! month = 250
//! gb = 0.05
//! [[price]]
//! country = ["DE"]
//! month = 90
//! gb = 0.002
//! ```

use serde::Deserialize;

use super::Cost;
use super::places::Place;

/// The table that is used where none is named: text, to be edited.
pub const DEFAULT: &str = include_str!("../../data/prices.toml");
/// The dearest price that is believed: what is more is a slip.
const PRICE_MAX: f64 = 1e7;

/// The table.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// When it was true.
    pub as_of: String,
    /// Who says so.
    pub source: String,
    /// For people: what the figures are in.
    pub currency: String,
    #[serde(rename = "price")]
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default)]
    place: Vec<String>,
    #[serde(default)]
    country: Vec<String>,
    #[serde(default)]
    continent: Vec<String>,
    month: f64,
    gb: f64,
}

impl Prices {
    /// Reads a table. The error is a text of several lines that names `source`, the line, and what is wrong.
    pub fn parse(text: &str, source: &str) -> Result<Prices, String> {
        let prices: Prices =
            toml::from_str(text).map_err(|error| format!("{source}: {}", error.to_string().trim_end()))?;
        for (index, entry) in prices.entries.iter().enumerate() {
            for (key, value) in [("month", entry.month), ("gb", entry.gb)] {
                if !(0.0..=PRICE_MAX).contains(&value) {
                    return Err(format!(
                        "{source}: {key} = {value} in [[price]] {}: wanted is 0 to {PRICE_MAX:.0}",
                        index + 1
                    ));
                }
            }
        }
        if !prices.entries.iter().any(Entry::is_for_all) {
            return Err(format!(
                "{source}: no [[price]] is for all places: wanted is one without place, country and continent"
            ));
        }
        Ok(prices)
    }

    /// What a PoP costs there: by the most exact entry, the last of those.
    pub fn of(&self, place: &Place) -> Cost {
        let rank = |entry: &&Entry| {
            let has = |list: &[String], value: &str| list.iter().any(|one| one.eq_ignore_ascii_case(value));
            match () {
                () if has(&entry.place, &place.name) => 3,
                () if has(&entry.country, place.country) => 2,
                () if has(&entry.continent, place.continent) => 1,
                () if entry.is_for_all() => 0,
                () => -1,
            }
        };
        let found = self.entries.iter().filter(|entry| rank(entry) >= 0).max_by_key(rank);
        found.map_or_else(Cost::default, |entry| Cost { month: entry.month, per_gb: entry.gb })
    }
}

impl Entry {
    fn is_for_all(&self) -> bool {
        self.place.is_empty() && self.country.is_empty() && self.continent.is_empty()
    }
}
