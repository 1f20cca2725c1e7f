//! What a driver loads: machine code for its GPU where this library was built with it, or else PTX, which it compiles.

use super::early_start::ARCHITECTURE;
use super::ptx::{Ptx, Version};
use core::fmt;
use std::borrow::Cow;

/// What `cargo xtask cubins` had made when this library was built, newest first. None in a plain build.
static BUNDLED: &[Cubin] = include!(concat!(env!("OUT_DIR"), "/cubins.rs"));

/// The kernels as machine code.
#[derive(Clone, Copy, Debug)]
pub struct Cubin {
    target: Version,
    /// In zlib's format.
    compressed: &'static [u8],
}

/// What the kernels were loaded from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    /// Machine code for a compute capability.
    Cubin(Version),
    /// PTX of this version, which the driver has compiled, or found in its cache.
    Ptx(Version),
}

impl Cubin {
    /// For GPUs of compute capability `number` / 10, in zlib's format.
    ///
    /// # Safety
    ///
    /// The driver trusts what is in it: a whole cubin, with the kernels of this version of the library. For 9.0 and later they wait
    /// for the kernel before them, as those of [`Ptx::starting_early`] do.
    pub const unsafe fn new(number: u32, compressed: &'static [u8]) -> Self {
        Self { target: Version::of_architecture(number), compressed }
    }

    /// Those in this library.
    pub fn bundled() -> &'static [Self] {
        BUNDLED
    }

    /// The compute capability that it was made for.
    pub fn target(&self) -> Version {
        self.target
    }

    /// Whether GPUs of a compute capability run it: those of its major version from its minor version on, but for 8.7, a system
    /// on a chip, which runs its own alone.
    ///
    /// Source: CUDA C++ Programming Guide, "Binary Compatibility".
    pub fn runs_on(&self, capability: Version) -> bool {
        let is_later = capability.major == self.target.major && capability.minor >= self.target.minor;
        capability == self.target || (is_later && capability != Version::new(8, 7))
    }

    /// The machine code; none if it is damaged.
    fn decompressed(&self) -> Option<Vec<u8>> {
        let code = miniz_oxide::inflate::decompress_to_vec_zlib(self.compressed).ok()?;
        code.starts_with(b"\x7fELF").then_some(code)
    }
}

/// What may be loaded on GPUs of a compute capability, in the order in which to try: those of the cubins, newest first, that run
/// there, so the nearest first; then PTX. Cubins for 9.0 and later may start early in any case, and the PTX if it is to.
pub(super) fn images(
    cubins: &[Cubin],
    capability: Version,
    early: bool,
) -> impl Iterator<Item = (Image, Cow<'static, [u8]>)> {
    let ptx = if early { Ptx::starting_early() } else { Ptx::bundled() };
    let machine_code = cubins
        .iter()
        .filter(move |cubin| cubin.runs_on(capability))
        .filter_map(|cubin| Some((Image::Cubin(cubin.target), Cow::Owned(cubin.decompressed()?))));
    machine_code.chain([(Image::Ptx(ptx.version), Cow::Borrowed(ptx.text.as_bytes()))])
}

/// Whether kernels may start before the one before them has ended: the GPU can, the driver has it in graphs, too, and what is
/// loaded there contains the wait.
///
/// Source: CUDA C++ Programming Guide, "Programmatic Dependent Launch", and the release notes of CUDA 12.3 for graphs.
pub(super) fn starts_early(capability: Version, driver: Version) -> bool {
    capability >= Version::of_architecture(ARCHITECTURE) && driver >= Version::new(12, 3)
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cubin(Version { major, minor }) => write!(f, "machine code for sm_{major}{minor}"),
            Self::Ptx(version) => write!(f, "PTX {version}, compiled by the driver"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cubins() -> [Cubin; 4] {
        let code = |text: &str| {
            let text = format!("\x7fELF of {text}");
            miniz_oxide::deflate::compress_to_vec_zlib(text.as_bytes(), 6).leak() as &'static [u8]
        };
        let of = [(90, code("90")), (89, b"damaged"), (86, code("86")), (80, code("80"))];
        // SAFETY: no driver gets them.
        of.map(|(number, code)| unsafe { Cubin::new(number, code) })
    }

    #[test]
    fn the_nearest_machine_code_comes_first_and_ptx_last() {
        let of = |major, minor| -> Vec<(Image, Vec<u8>)> {
            images(&cubins(), Version::new(major, minor), false)
                .map(|(image, bytes)| (image, bytes.into_owned()))
                .collect()
        };
        let cubin = |number: u32| Image::Cubin(Version::of_architecture(number));
        let names = |major, minor| -> Vec<Image> { of(major, minor).into_iter().map(|(image, _)| image).collect() };
        let ptx = Image::Ptx(Ptx::bundled().version);
        assert_eq!(names(9, 0), [cubin(90), ptx]);
        assert_eq!(names(8, 9), [cubin(86), cubin(80), ptx], "the damaged one is left out");
        assert_eq!(names(8, 0), [cubin(80), ptx]);
        assert_eq!(names(12, 0), [ptx]);
        assert_eq!(names(8, 7), [ptx], "a system on a chip");
        assert_eq!(of(8, 6)[0].1, b"\x7fELF of 86");
        assert!(of(9, 0)[1].1.starts_with(b".version"));
        let ptx_of = |early| {
            let (_, text) = images(&[], Version::new(9, 0), early).next().expect("PTX");
            String::from_utf8_lossy(&text).into_owned()
        };
        let (plain, early) = (ptx_of(false), ptx_of(true));
        assert!(plain.contains(".target sm_80") && !plain.contains("griddepcontrol"));
        assert!(early.contains(".target sm_90") && early.contains("griddepcontrol.wait") && early.ends_with('\0'));
        let can = |major, minor, driver| starts_early(Version::new(major, minor), Version::new(12, driver));
        assert!(can(9, 0, 3) && can(12, 0, 4) && !can(9, 0, 2) && !can(8, 9, 3));
    }

    #[test]
    fn what_is_in_the_library_is_readable() {
        for cubin in Cubin::bundled() {
            let code = cubin.decompressed().expect("not damaged");
            assert!(code.starts_with(b"\x7fELF"), "{:?}", cubin.target);
        }
    }
}
