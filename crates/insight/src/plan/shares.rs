//! Shares of countries, as analytics export them: lines `country,share`, with an optional third column of GB per month.
//!
//! Read: commas, semicolons or tabs; a share with or without `%`, of any whole; quotes around a field; one line of titles; lines that begin with `#`.
//! Not read: commas as decimal points, and names of countries.

use super::places::markets_of;

/// Lines at most: each country some times.
pub const ROWS_MAX: usize = 10_000;
/// Wrong lines that are told one by one.
const COMPLAINTS_MAX: usize = 20;
/// What exports write for visitors of whom no country is known.
const NOWHERE: &[&str] = &["", "-", "??", "XX", "ZZ", "T1", "A1", "A2", "O1"];

/// A line.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// ISO 3166, two capital letters.
    pub country: String,
    /// Its share, of whatever.
    pub share: f64,
    /// GB per month, where the line says so.
    pub gb: Option<f64>,
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shares {
    /// The lines, in their order.
    pub rows: Vec<Row>,
    /// The share of visitors of no country.
    pub nowhere: f64,
}

/// Reads shares. The error has a line for each wrong one: its number, what was found, and what is wanted.
pub fn parse(text: &str) -> Result<Shares, Vec<String>> {
    let mut shares = Shares::default();
    let mut complaints = Vec::new();
    let mut is_first = true;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_start_matches('\u{feff}').trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let read = read_line(line);
        let is_title = std::mem::take(&mut is_first) && line.bytes().all(|byte| !byte.is_ascii_digit());
        match read {
            Ok(_) if shares.rows.len() >= ROWS_MAX => {
                complaints.push(format!("{}: more than {ROWS_MAX} lines", index + 1));
                break;
            }
            Ok(row) if NOWHERE.contains(&&*row.country) => shares.nowhere += row.share,
            Ok(row) => shares.rows.push(row),
            Err(_) if is_title => {}
            Err(_) if complaints.len() >= COMPLAINTS_MAX => {
                complaints.push("and more".to_owned());
                break;
            }
            Err(wrong) => complaints.push(format!("{}: {wrong}", index + 1)),
        }
    }
    if complaints.is_empty() && !shares.rows.iter().any(|row| row.share > 0.0) {
        complaints.push("1: no line has a share above 0; wanted are lines such as DE,31.5".to_owned());
    }
    if complaints.is_empty() { Ok(shares) } else { Err(complaints) }
}

fn read_line(line: &str) -> Result<Row, String> {
    let mut fields = line.split([',', ';', '\t']).map(|field| field.trim().trim_matches('"').trim());
    let (country, share, gb) =
        (fields.next().unwrap_or(""), fields.next(), fields.next().filter(|gb| !gb.is_empty()));
    if fields.any(|field| !field.is_empty()) {
        return Err(format!(
            "{:?} has more than three fields; wanted is country,share[,GB per month]",
            clip(line)
        ));
    }
    let Some(share) = share else {
        return Err(format!("{:?} has no share; wanted is country,share, e.g. DE,31.5", clip(line)));
    };
    let number = |text: &str, what: &str| match text.trim_end_matches('%').trim().parse::<f64>() {
        Ok(number) if (0.0..=1e15).contains(&number) => Ok(number),
        _ => Err(format!("{what} {:?} is no number from 0 on; wanted is e.g. 31.5", clip(text))),
    };
    let share = number(share, "the share")?;
    let gb = gb.map(|gb| number(gb, "the traffic")).transpose()?;
    let mut country = country.to_ascii_uppercase();
    if country == "UK" {
        country = "GB".to_owned();
    }
    if !NOWHERE.contains(&&*country) && markets_of(&country).is_empty() {
        return Err(format!(
            "{:?} is no country; wanted are the two letters of ISO 3166, e.g. DE",
            clip(&country)
        ));
    }
    Ok(Row { country, share, gb })
}

/// The beginning of a text, for messages.
fn clip(text: &str) -> String {
    text.chars().take(40).collect()
}
