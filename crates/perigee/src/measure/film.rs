//! What was to be seen when: a strip of small pictures for each way, at the same times, one below the other.
//!
//! A film is a visit of its own, made when all others have been measured, because pictures cost the browser time: it shows, and proves nothing.

use browser::Frame;
use serde_json::{Value, json};
use website::html::escape;

/// Pictures of a strip.
const COLUMNS_MAX: usize = 10;

/// Times between two pictures, in ms: the shortest with which the strip gets to its end.
const STEPS_MS: [f64; 12] =
    [20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10_000.0, 20_000.0, 30_000.0, 60_000.0];

/// Bytes of pictures in a report, in base64: what a mail still takes. A picture has some kilobytes.
pub(super) const PICTURES_BYTES_MAX: usize = 4 << 20;

/// A visit by one way.
#[derive(Debug)]
pub(super) struct Film {
    pub(super) way: String,
    pub(super) frames: Vec<Frame>,
    /// Why there are none.
    pub(super) failure: Option<String>,
}

impl Film {
    /// One that could not be had.
    pub(super) fn missing(way: &str, why: impl Into<String>) -> Film {
        Film { way: way.to_owned(), frames: Vec::new(), failure: Some(why.into()) }
    }

    /// The picture that was to be seen at a time: its place.
    fn at(&self, ms: f64) -> Option<usize> {
        self.frames.iter().rposition(|frame| frame.at_ms <= ms)
    }

    /// Times alone.
    pub(super) fn json(&self) -> Value {
        let times: Vec<f64> = self.frames.iter().map(|frame| frame.at_ms.round()).collect();
        json!({ "way": self.way, "changes_ms": times, "failure": self.failure })
    }
}

/// The moments at which all are shown.
fn moments(films: &[Film]) -> Vec<f64> {
    let end = films.iter().filter_map(|film| film.frames.last()).map(|frame| frame.at_ms).fold(0.0, f64::max);
    let fits = |step: &&f64| **step * (COLUMNS_MAX - 1) as f64 >= end;
    let step = STEPS_MS.iter().find(fits).or(STEPS_MS.last()).copied().unwrap_or(end);
    let count = ((end / step).ceil() as usize + 1).min(COLUMNS_MAX);
    (0..count).map(|index| index as f64 * step).collect()
}

/// The strips of a place. `room`: bytes of pictures that the report may still have; `number` keeps the names of one place from those of another.
pub(super) fn strips(films: &[Film], number: usize, room: &mut usize) -> String {
    let said = films.iter().filter_map(|film| Some((&film.way, film.failure.as_ref()?)));
    let failures: String = said
        .map(|(way, why)| {
            format!("<p class=by>By way of {} nothing was filmed: {}</p>", escape(way), escape(why))
        })
        .collect();
    if films.iter().all(|film| film.frames.is_empty()) {
        return failures;
    }
    let moments = moments(films);
    let (mut style, mut rows) = (String::new(), String::new());
    for (row, film) in films.iter().enumerate().filter(|(_, film)| !film.frames.is_empty()) {
        rows.push_str(&format!("<tr><th scope=row>{}", escape(&film.way)));
        let mut shown = None;
        for ms in &moments {
            let Some(at) = film.at(*ms) else {
                rows.push_str("<td><div class=frame role=img aria-label=\"nothing yet\"></div>");
                continue;
            };
            let (name, jpeg) = (format!("f{number}-{row}-{at}"), &film.frames[at].jpeg);
            // Each picture is there once, however often it is shown.
            if shown != Some(at) && jpeg.len() <= *room {
                *room -= jpeg.len();
                style.push_str(&format!(
                    ".{name}{{background-image:url(data:image/jpeg;base64,{})}}",
                    escape(jpeg)
                ));
            }
            shown = Some(at);
            rows.push_str(&format!(
                "<td><div class=\"frame {name}\" role=img aria-label=\"as it has been since {:.0} ms\"></div>",
                film.frames[at].at_ms
            ));
        }
    }
    let head: String = moments.iter().map(|ms| format!("<th scope=col>{:.1} s", ms / 1000.0)).collect();
    format!(
        "<h3>What was to be seen</h3><style>{style}</style><div class=film tabindex=0 role=region aria-label=\"What was to be seen\"><table>\
         <tr><td>{head}{rows}</table></div><p class=by>One first view by each way, filmed after the others and not counted among them.</p>{failures}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn film(way: &str, times: &[f64]) -> Film {
        let frame = |at_ms: &f64| Frame { at_ms: *at_ms, jpeg: format!("picture{at_ms}") };
        Film { way: way.to_owned(), frames: times.iter().map(frame).collect(), failure: None }
    }

    #[test]
    fn all_ways_are_shown_at_the_same_times_and_each_picture_is_there_once() {
        let films = [film("origin", &[300.0, 840.0]), film("CDN", &[90.0, 210.0])];
        assert_eq!(moments(&films).len(), 10);
        let html = strips(&films, 0, &mut PICTURES_BYTES_MAX.clone());
        assert_eq!(html.matches("base64,picture").count(), 4, "{html}");
        // From 0 to 900 ms in steps of 100: three without anything, six of the first, one of the second.
        let origin = html.split("<tr>").nth(2).unwrap();
        assert_eq!(origin.matches("nothing yet").count(), 3, "{origin}");
        assert_eq!(origin.matches("f0-0-0").count(), 6, "{origin}");
        assert_eq!(origin.matches("f0-0-1").count(), 1, "{origin}");
    }

    #[test]
    fn what_has_no_room_is_left_out_and_what_moves_for_ever_ends() {
        let mut room = 10;
        let html = strips(&[film("origin", &[1.0, 2.0])], 0, &mut room);
        assert_eq!((html.matches("base64").count(), room), (1, 2));
        let long: Vec<f64> = (0..300).map(|number| f64::from(number) * 1000.0).collect();
        assert_eq!(moments(&[film("origin", &long)]).len(), 6, "each minute");
        assert_eq!(strips(&[], 0, &mut room), "");
    }

    #[test]
    fn a_film_that_is_missing_is_said_to_be_and_takes_none_of_the_others_away() {
        let missing = || Film::missing("CDN", "it <has> ended");
        let said = "By way of CDN nothing was filmed: it &lt;has&gt; ended";
        let html = strips(&[film("origin", &[1.0]), missing()], 0, &mut PICTURES_BYTES_MAX.clone());
        assert!(html.contains("base64,picture1") && html.contains(said), "{html}");
        assert!(!html.contains("<th scope=row>CDN"), "{html}");
        assert!(strips(&[missing()], 0, &mut PICTURES_BYTES_MAX.clone()).contains(said));
    }
}
