//! The figures of comparisons and replays, as SVG or PNG.
//!
//! Both are drawn by the same code at `SCALE` times the size they are meant for, since drawing backends place
//! everything on whole pixels; the PNG is then averaged down, which smooths its edges.

mod axis;
mod comparison;
mod figure;
mod replay;
mod style;

use self::figure::Figure;
use crate::compare::report::LayerReport;
use crate::replay::report::RecordingReport;
use ndarray::ArrayView3;
use plotters::prelude::*;
use std::fmt::Display;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Pixels drawn for each point of the layout.
const SCALE: u32 = 4;
/// Pixels drawn for each pixel of a PNG, in both directions: what is left is twice the density of a plain screen.
const AVERAGED: u32 = 2;
const RGB: usize = 3;

/// Where to draw, in which format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlotFile {
    path: PathBuf,
    format: PlotFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PlotFormat {
    Svg,
    Png,
}

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlotError {
    /// A file name that tells no format.
    #[error("cannot draw {}: its name must end in .svg or .png", path.display())]
    UnknownFormat {
        /// The offending name.
        path: PathBuf,
    },
    /// A place where no file can be.
    #[error("cannot draw {}: there is no such directory", path.display())]
    NoDirectory {
        /// The file asked for.
        path: PathBuf,
    },
    /// Drawing failed.
    #[error("cannot draw the figure: {0}")]
    Draw(String),
    /// The file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

impl PlotFile {
    /// A file to draw to, by its ending. Nothing is written yet.
    ///
    /// # Errors
    ///
    /// Another ending than .svg and .png; a directory that does not exist.
    pub fn new(path: &Path) -> Result<Self, PlotError> {
        let path = path.to_owned();
        let ending = path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
        let format = match ending.as_deref() {
            Some("svg") => PlotFormat::Svg,
            Some("png") => PlotFormat::Png,
            _ => return Err(PlotError::UnknownFormat { path }),
        };
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() && !parent.is_dir() => Err(PlotError::NoDirectory { path }),
            _ => Ok(Self { path, format }),
        }
    }
}

/// Chance relative error against budget: a row of panels for each layer, a panel for each source of weights.
///
/// # Errors
///
/// See [`PlotError`].
pub fn draw_comparison(layers: &[LayerReport], file: &PlotFile) -> Result<(), PlotError> {
    draw(&comparison::figure(layers), file)
}

/// Chance error against step: a row of panels for each recording, a panel for each budget.
///
/// # Errors
///
/// See [`PlotError`].
pub fn draw_replay(recordings: &[RecordingReport], file: &PlotFile) -> Result<(), PlotError> {
    draw(&replay::figure(recordings), file)
}

fn draw(figure: &Figure, file: &PlotFile) -> Result<(), PlotError> {
    style::register_font()?;
    let bytes = match file.format {
        PlotFormat::Svg => svg(figure)?.into_bytes(),
        PlotFormat::Png => png(figure)?,
    };
    fs::write(&file.path, bytes).map_err(|source| PlotError::Write { path: file.path.clone(), source })
}

fn svg(figure: &Figure) -> Result<String, PlotError> {
    let (width, height) = figure.size();
    let (drawn_width, drawn_height) = (width * SCALE, height * SCALE);
    let mut text = String::new();
    figure.draw(&SVGBackend::with_string(&mut text, (drawn_width, drawn_height)).into_drawing_area())?;
    let drawn = format!(r#"width="{drawn_width}" height="{drawn_height}" viewBox"#);
    Ok(text.replacen(&drawn, &format!(r#"width="{width}" height="{height}" viewBox"#), 1))
}

fn png(figure: &Figure) -> Result<Vec<u8>, PlotError> {
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

/// Every square of `AVERAGED` × `AVERAGED` pixels becomes one of their mean colour.
fn averaged(pixels: &[u8], width: usize) -> Result<Vec<u8>, PlotError> {
    let side = AVERAGED as usize;
    let height = pixels.len() / (width * RGB);
    let pixels = ArrayView3::from_shape((height, width, RGB), pixels).map_err(drawing_failed)?;
    let mean = |square: ArrayView3<'_, u8>| square.iter().map(|&v| usize::from(v)).sum::<usize>() / square.len();
    Ok(pixels.exact_chunks((side, side, 1)).into_iter().map(|square| mean(square) as u8).collect())
}

fn drawing_failed(error: impl Display) -> PlotError {
    PlotError::Draw(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ending_decides() {
        assert_eq!(PlotFile::new(Path::new("a.SVG")).expect("a format").format, PlotFormat::Svg);
        assert_eq!(PlotFile::new(Path::new("a.b.png")).expect("a format").format, PlotFormat::Png);
        for name in ["a.pdf", "png", ".svg", ""] {
            assert!(matches!(PlotFile::new(Path::new(name)), Err(PlotError::UnknownFormat { .. })), "{name}");
        }
        let nowhere = PlotFile::new(Path::new("no/such/directory/a.svg"));
        assert!(matches!(nowhere, Err(PlotError::NoDirectory { .. })));
    }

    #[test]
    fn pixels_are_averaged() {
        let pixels =
            [[0, 100, 8], [4, 100, 0], [255; 3], [255; 3], [0, 100, 0], [8, 100, 0], [255; 3], [255; 3]].concat();
        assert_eq!(averaged(&pixels, 4).expect("two rows"), [3, 100, 2, 255, 255, 255]);
    }
}
