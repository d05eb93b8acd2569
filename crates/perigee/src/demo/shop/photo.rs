//! Draws the shop's photos: pots of clay, each with a form, a glaze and the light of a window. As a camera would see a surface of
//! revolution: a point of the picture, the height and the normal there, what light that sends back.

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::ZlibEncoder;

use model::Draw;

/// How far the camera looks down: of a circle's depth, so much is seen as height.
const TILT: f32 = 0.24;
/// Where the light comes from, of length 1.
const LIGHT: [f32; 3] = [-0.557, 0.557, 0.616];
/// How much of the picture's height the scene has: x from -0.75 to 0.75, y from -0.3 to 1.2.
const SCENE: f32 = 1.5;

/// A pot to be photographed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pot {
    /// Radii from the foot to the rim, at equal distances; 1 is the height of a tall vase.
    pub(super) radii: [f32; 6],
    /// Its height.
    pub(super) height: f32,
    /// Whether it has a handle.
    pub(super) has_handle: bool,
    /// The glaze.
    pub(super) glaze: [f32; 3],
    /// What decides its speckles and where the glaze ends.
    pub(super) seed: u64,
}

/// The clay where there is no glaze.
const CLAY: [f32; 3] = [0.55, 0.38, 0.27];

/// A square picture of the pot, `size` pixels wide, as PNG.
///
/// # Errors
/// None but what memory gives.
pub(super) fn picture(pot: &Pot, size: usize) -> io::Result<Vec<u8>> {
    let mut draw = Draw(pot.seed);
    let (waves, phase) = (3.0 + draw.below(5) as f32, draw.unit() as f32 * 6.0);
    let dipped = 0.12 + 0.2 * draw.unit() as f32;
    let mut rows = Vec::with_capacity(size * (size * 3 + 1));
    for row in 0..size {
        // Each byte is written as what it differs by from the pixel on its left (filter 1): smooth pictures pack well so.
        rows.push(1);
        let mut left = [0_u8; 3];
        for column in 0..size {
            let x = ((column as f32 + 0.5) / size as f32 - 0.5) * SCENE;
            let y = 1.2 - (row as f32 + 0.5) / size as f32 * SCENE;
            let colour = pot.colour(x, y, SCENE / size as f32, (waves, phase, dipped));
            let pixel = colour.map(|part| (part.clamp(0.0, 1.0).sqrt() * 255.0) as u8);
            rows.extend((0..3).map(|part| pixel[part].wrapping_sub(left[part])));
            left = pixel;
        }
    }
    png(size as u32, &rows)
}

impl Pot {
    /// How wide it is at a height from 0 to 1 of its own: a Catmull-Rom curve through the radii.
    fn radius(&self, at: f32) -> f32 {
        let last = self.radii.len() - 1;
        let scaled = at.clamp(0.0, 1.0) * last as f32;
        let index = (scaled as usize).min(last - 1);
        let point = |offset: isize| self.radii[(index as isize + offset).clamp(0, last as isize) as usize];
        let (t, [a, b, c, d]) = (scaled - index as f32, [point(-1), point(0), point(1), point(2)]);
        let curve = 2.0 * b
            + (c - a) * t
            + (2.0 * a - 5.0 * b + 4.0 * c - d) * t * t
            + (3.0 * b - a - 3.0 * c + d) * t * t * t;
        (curve / 2.0).max(0.01)
    }

    /// Light from a point of the scene; `pixel` is a pixel's width there.
    fn colour(&self, x: f32, y: f32, pixel: f32, glazing: (f32, f32, f32)) -> [f32; 3] {
        let mut colour = self.room(x, y);
        let widest = self.radii.iter().fold(0.0_f32, |widest, radius| widest.max(*radius)) * 1.1;
        let right = if self.has_handle { widest + self.height * 0.33 } else { widest };
        if x < -widest || x > right || y > self.height + widest * TILT || y < -widest * TILT {
            return colour;
        }
        if self.has_handle {
            let (handle, covers) = self.handle(x, y, pixel);
            colour = mix(colour, handle, covers);
        }
        let (wall, covers) = self.wall(x, y, pixel, glazing);
        colour = mix(colour, wall, covers);
        let (mouth, covers) = self.mouth(x, y, pixel);
        mix(colour, mouth, covers)
    }

    /// The table, the wall behind it, and the pot's shadow.
    fn room(&self, x: f32, y: f32) -> [f32; 3] {
        let horizon = smooth((y - 0.28) / 0.1);
        let table = [0.72 - y * 0.1, 0.66 - y * 0.1, 0.58 - y * 0.1];
        let back = [0.86 - y * 0.22, 0.85 - y * 0.2, 0.82 - y * 0.16];
        let foot = self.radii[0].max(self.radii[1]);
        let (aside, depth) = ((x - 0.2) / (foot + 0.3), (y + 0.01) / (foot * TILT + 0.07));
        let shadow = 0.55 * (-(aside * aside + depth * depth) * 1.6).exp();
        mix(table, back, horizon).map(|part| part * (1.0 - shadow))
    }

    /// The outside, if this point of the picture is on it.
    fn wall(&self, x: f32, y: f32, pixel: f32, (waves, phase, dipped): (f32, f32, f32)) -> ([f32; 3], f32) {
        // The nearer to the camera, the lower in the picture: the height is found by going there a few times.
        let mut at = y / self.height;
        for _ in 0..4 {
            let radius = self.radius(at);
            let toward = (radius * radius - x * x).max(0.0).sqrt();
            at = (y + toward * TILT) / self.height;
        }
        let radius = self.radius(at);
        let covers = ((radius - x.abs()) / pixel + 0.5).clamp(0.0, 1.0)
            * ((1.0 - at) * self.height / pixel + 0.5).clamp(0.0, 1.0)
            * (at * self.height / pixel + 0.5).clamp(0.0, 1.0);
        if covers == 0.0 {
            return (CLAY, 0.0);
        }
        let across = (x / radius).clamp(-1.0, 1.0);
        let facing = (1.0 - across * across).max(0.0).sqrt();
        let slope = (self.radius(at + 0.01) - self.radius(at - 0.01)) / (0.02 * self.height);
        // Fingers on the wheel leave rings.
        let rings = 0.05 * (at * self.height * 170.0 + phase).sin();
        let length = (1.0 + (slope + rings).powi(2)).sqrt();
        let normal = [across / length, -(slope + rings) / length, facing / length];
        let lit = dot(normal, LIGHT).max(0.0);
        let edge = dipped + 0.035 * (across.asin() * waves + phase).sin();
        let is_glazed = smooth((at - edge) / 0.015);
        let speckle = 1.0 - 0.35 * speckled(self.seed, across.asin(), at);
        // Glaze runs down, and is thicker where it stops.
        let pooled = 1.0 - 0.3 * (-((at - edge) / 0.05).powi(2)).exp();
        let paint = mix(CLAY, self.glaze.map(|part| part * pooled * speckle), is_glazed);
        let mirrored = 2.0 * dot(normal, LIGHT) * normal[2] - LIGHT[2];
        let shine = is_glazed * 0.5 * mirrored.max(0.0).powi(28);
        (paint.map(|part| part * (0.28 + 0.85 * lit) + shine), covers)
    }

    /// The opening, seen from above.
    fn mouth(&self, x: f32, y: f32, pixel: f32) -> ([f32; 3], f32) {
        let radius = self.radius(1.0);
        let away = ((x / radius).powi(2) + ((y - self.height) / (radius * TILT)).powi(2)).sqrt();
        let covers = ((1.0 - away) * radius * TILT / pixel + 0.5).clamp(0.0, 1.0);
        let lip = smooth((away - 0.86) / 0.06);
        let inside =
            0.12 + 0.25 * (0.5 + 0.5 * x / radius) * smooth((y - self.height) / (radius * TILT) + 0.6);
        (mix(self.glaze.map(|part| part * inside), self.glaze.map(|part| part * 0.95), lip), covers)
    }

    /// A ring at the right side.
    fn handle(&self, x: f32, y: f32, pixel: f32) -> ([f32; 3], f32) {
        let (middle, size, thickness) = (self.radius(0.55), self.height * 0.27, self.height * 0.055);
        let (dx, dy) = (x - middle, y - self.height * 0.52);
        let away = (dx * dx + dy * dy).sqrt() - size;
        let covers = ((thickness - away.abs()) / pixel + 0.5).clamp(0.0, 1.0);
        let round = (away / thickness).clamp(-1.0, 1.0);
        let lit = 0.55 - 0.3 * round * (dx / size) + 0.25 * dy / size;
        (self.glaze.map(|part| part * lit.max(0.15)), covers)
    }
}

/// 1 in a speckle, 0 elsewhere.
fn speckled(seed: u64, angle: f32, at: f32) -> f32 {
    let (column, row) = ((angle * 40.0).floor(), (at * 60.0).floor());
    let cell =
        (column as i64 as u64).wrapping_mul(0x9e37_79b9) ^ (row as i64 as u64).wrapping_mul(0x85eb_ca6b);
    let mut draw = Draw(seed ^ cell);
    if draw.below(4) != 0 {
        return 0.0;
    }
    let (dx, dy) = (angle * 40.0 - column - draw.unit() as f32, at * 60.0 - row - draw.unit() as f32);
    1.0 - smooth((dx * dx + dy * dy) * 9.0)
}

fn dot(a: [f32; 3], b: [f32; 3]) -> f32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

fn mix(a: [f32; 3], b: [f32; 3], share: f32) -> [f32; 3] {
    [0, 1, 2].map(|part| a[part] + (b[part] - a[part]) * share)
}

/// From 0 to 1 without a corner.
fn smooth(at: f32) -> f32 {
    let at = at.clamp(0.0, 1.0);
    at * at * (3.0 - 2.0 * at)
}

// --- PNG ---

/// Rows of RGB, each behind the number of its filter, as a picture (PNG, W3C 2003, §5).
fn png(size: u32, rows: &[u8]) -> io::Result<Vec<u8>> {
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut head = [size.to_be_bytes(), size.to_be_bytes()].concat();
    // 8 bits, RGB, the only compression, the only set of filters, not interlaced.
    head.extend([8, 2, 0, 0, 0]);
    chunk(&mut file, b"IHDR", &head);
    let mut packer = ZlibEncoder::new(Vec::new(), Compression::default());
    packer.write_all(rows)?;
    chunk(&mut file, b"IDAT", &packer.finish()?);
    chunk(&mut file, b"IEND", &[]);
    Ok(file)
}

fn chunk(file: &mut Vec<u8>, kind: &[u8; 4], content: &[u8]) {
    file.extend((content.len() as u32).to_be_bytes());
    let mut sum = flate2::Crc::new();
    for part in [kind.as_slice(), content] {
        sum.update(part);
        file.extend(part);
    }
    file.extend(sum.sum().to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_photo_shows_a_pot_and_is_a_sound_file() {
        let pot = Pot {
            radii: [0.2, 0.3, 0.34, 0.25, 0.15, 0.2],
            height: 0.9,
            has_handle: true,
            glaze: [0.1, 0.2, 0.6],
            seed: 1,
        };
        let (size, file) = (64, picture(&pot, 64).unwrap());
        assert!(file.starts_with(b"\x89PNG\r\n\x1a\n"));
        let packed = file.windows(4).position(|kind| kind == b"IDAT").unwrap();
        let length = u32::from_be_bytes(file[packed - 4..packed].try_into().unwrap()) as usize;
        let mut rows = Vec::new();
        let mut reader = flate2::read::ZlibDecoder::new(&file[packed + 4..packed + 4 + length]);
        io::Read::read_to_end(&mut reader, &mut rows).unwrap();
        assert_eq!(rows.len(), size * (size * 3 + 1));
        // The middle is the glaze's blue, the corner is not.
        let pixel = |row: usize, column: usize| {
            let row = &rows[row * (size * 3 + 1) + 1..];
            [0, 1, 2].map(|part| (0..=column).fold(0_u8, |sum, at| sum.wrapping_add(row[at * 3 + part])))
        };
        let (middle, corner) = (pixel(34, 30), pixel(2, 2));
        let is_blue = |[red, _, blue]: [u8; 3]| blue.saturating_sub(red) > 60;
        assert!(is_blue(middle) && !is_blue(corner), "{middle:?} {corner:?}");
    }
}
