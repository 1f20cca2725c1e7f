//! Figures of lines in panels, written to SVG or PNG files.
//!
//! A subcommand describes its figure as a `Figure`: rows of panels with their lines, axes and legend. Both formats are
//! drawn by the same code, at `SCALE` times the figure's size since drawing backends place everything on whole pixels;
//! the PNG is then averaged down, which smooths its edges.

mod axis;
mod layout;
mod style;

pub(crate) use self::axis::Axis;
pub(crate) use self::layout::{Figure, LegendEntry, Line, Panel, Row, short_name};
pub use self::style::DrawError;
pub(crate) use self::style::{CIRCLE, DIAMOND, INVERTED_TRIANGLE, LineStyle, RING, SQUARE, TRIANGLE};

use self::style::{SCALE, drawing_failed, register_font};
use ndarray::ArrayView3;
use plotters::prelude::*;
use std::path::PathBuf;
use std::{fs, io};

/// Pixels drawn for each pixel of a PNG, in both directions; the PNG then has twice the density of a plain screen.
const AVERAGED: u32 = 2;
const RGB: usize = 3;

/// A file to draw to, and its format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FigureFile {
    path: PathBuf,
    format: FigureFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FigureFormat {
    Svg,
    Png,
}

/// Why a figure cannot be drawn or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FigureError {
    /// A file name without the ending of a format.
    #[error("cannot draw {}: its name must end in .svg or .png", path.display())]
    UnknownFormat {
        /// The offending name.
        path: PathBuf,
    },
    /// A directory that does not exist.
    #[error("cannot draw {}: there is no such directory", path.display())]
    NoDirectory {
        /// The file asked for.
        path: PathBuf,
    },
    /// Drawing failed.
    #[error(transparent)]
    Draw(#[from] DrawError),
    /// The file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// A file to draw to, by its ending. Nothing is written yet.
impl TryFrom<PathBuf> for FigureFile {
    type Error = FigureError;

    /// # Errors
    ///
    /// Another ending than .svg and .png; a directory that does not exist.
    fn try_from(path: PathBuf) -> Result<Self, FigureError> {
        let ending = path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
        let format = match ending.as_deref() {
            Some("svg") => FigureFormat::Svg,
            Some("png") => FigureFormat::Png,
            _ => return Err(FigureError::UnknownFormat { path }),
        };
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() && !parent.is_dir() => {
                Err(FigureError::NoDirectory { path })
            }
            _ => Ok(Self { path, format }),
        }
    }
}

impl FigureFile {
    /// Draws the figure and writes the file.
    ///
    /// # Errors
    ///
    /// If drawing or writing fails.
    pub(crate) fn draw(&self, figure: &Figure) -> Result<(), FigureError> {
        register_font()?;
        let bytes = match self.format {
            FigureFormat::Svg => svg(figure)?.into_bytes(),
            FigureFormat::Png => png(figure)?,
        };
        fs::write(&self.path, bytes).map_err(|source| FigureError::Write { path: self.path.clone(), source })
    }
}

fn svg(figure: &Figure) -> Result<String, DrawError> {
    let (width, height) = figure.size();
    let (drawn_width, drawn_height) = (width * SCALE, height * SCALE);
    let mut text = String::new();
    figure.draw(&SVGBackend::with_string(&mut text, (drawn_width, drawn_height)).into_drawing_area())?;
    let drawn = format!(r#"width="{drawn_width}" height="{drawn_height}" viewBox"#);
    Ok(text.replacen(&drawn, &format!(r#"width="{width}" height="{height}" viewBox"#), 1))
}

fn png(figure: &Figure) -> Result<Vec<u8>, DrawError> {
    let (width, height) = figure.size();
    let (drawn_width, drawn_height) = (width * SCALE, height * SCALE);
    let mut drawn = vec![0; drawn_width as usize * drawn_height as usize * RGB];
    figure.draw(&BitMapBackend::with_buffer(&mut drawn, (drawn_width, drawn_height)).into_drawing_area())?;

    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, drawn_width / AVERAGED, drawn_height / AVERAGED);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().map_err(drawing_failed)?;
    writer.write_image_data(&averaged(&drawn, drawn_width as usize)?).map_err(drawing_failed)?;
    writer.finish().map_err(drawing_failed)?;
    Ok(bytes)
}

/// Replaces each square of `AVERAGED` × `AVERAGED` pixels by one pixel of their mean colour.
fn averaged(pixels: &[u8], width: usize) -> Result<Vec<u8>, DrawError> {
    let side = AVERAGED as usize;
    let height = pixels.len() / (width * RGB);
    let pixels = ArrayView3::from_shape((height, width, RGB), pixels).map_err(drawing_failed)?;
    let mean = |square: ArrayView3<'_, u8>| square.iter().map(|&v| usize::from(v)).sum::<usize>() / square.len();
    Ok(pixels.exact_chunks((side, side, 1)).into_iter().map(|square| mean(square) as u8).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_decides() {
        let file = |name: &str| FigureFile::try_from(PathBuf::from(name));
        assert_eq!(file("a.SVG").expect("a format").format, FigureFormat::Svg);
        assert_eq!(file("a.b.png").expect("a format").format, FigureFormat::Png);
        for name in ["a.pdf", "png", ".svg", ""] {
            assert!(matches!(file(name), Err(FigureError::UnknownFormat { .. })), "{name}");
        }
        assert!(matches!(file("no/such/directory/a.svg"), Err(FigureError::NoDirectory { .. })));
    }

    #[test]
    fn pixels_are_averaged() {
        let pixels =
            [[0, 100, 8], [4, 100, 0], [255; 3], [255; 3], [0, 100, 0], [8, 100, 0], [255; 3], [255; 3]].concat();
        assert_eq!(averaged(&pixels, 4).expect("two rows"), [3, 100, 2, 255, 255, 255]);
    }
}
