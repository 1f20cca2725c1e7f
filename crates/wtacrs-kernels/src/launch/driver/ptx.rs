//! The kernels as PTX text, built into this library, and the drivers and GPUs that accept it.

use super::early_start;
use core::fmt;
use std::sync::LazyLock;

/// Runs on sm_80 and everything later.
const SM80: &str = concat!(include_str!("../../../ptx/wtacrs_sm80.ptx"), "\0");

/// A version: of CUDA, of PTX, or a compute capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The number before the point.
    pub major: u32,
    /// The number behind it.
    pub minor: u32,
}

/// PTX text with the versions of its head.
#[derive(Clone, Copy, Debug)]
pub struct Ptx {
    /// The text, ending with a NUL.
    pub(super) text: &'static str,
    /// The version of its language (`.version`).
    pub version: Version,
    /// The compute capability that it was made for (`.target`).
    pub target: Version,
    /// The others that run it.
    reach: Reach,
}

/// Which compute capabilities run a text beside the one of its target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// All later ones.
    Later,
    /// Later ones of the same family: `sm_100f`.
    Family,
    /// None: `sm_90a`.
    None,
}

impl Ptx {
    /// The kernels that come with this library.
    pub fn bundled() -> Self {
        Self::parse(SM80).expect("the bundled PTX says its version and target")
    }

    /// The same kernels for compute capability 9.0 and later, where they start before the kernel before them has ended, and wait.
    pub fn starting_early() -> Self {
        static TEXT: LazyLock<String> = LazyLock::new(|| early_start::starting_early(SM80));
        Self::parse(&TEXT).expect("as the text that it is made of")
    }

    /// The text, without its NUL.
    pub fn text(&self) -> &'static str {
        self.text.trim_end_matches('\0')
    }

    /// The first CUDA version whose drivers load it.
    ///
    /// Source: PTX ISA, "Release Notes".
    pub fn needed_driver(&self) -> Version {
        let Version { major, minor } = self.version;
        match (major, minor) {
            (..=6, _) => Version::new(11, 0),
            (7, minor) => Version::new(11, minor),
            (8, minor @ 0..=5) => Version::new(12, minor),
            (8, minor) => Version::new(12, minor + 1),
            (major, minor) => Version::new(major + 4, minor),
        }
    }

    /// Whether GPUs of a compute capability run it.
    ///
    /// Source: PTX ISA, "PTX Module Directives: .target".
    pub fn runs_on(&self, capability: Version) -> bool {
        match self.reach {
            Reach::Later => capability >= self.target,
            Reach::Family => capability.major == self.target.major && capability >= self.target,
            Reach::None => capability == self.target,
        }
    }

    /// The names of its kernels.
    pub fn entry_points(&self) -> impl Iterator<Item = &'static str> {
        let heads = self.text.lines().filter_map(|line| line.split_once(".entry "));
        heads.filter_map(|(_, head)| head.split('(').next()).map(str::trim)
    }

    fn parse(text: &'static str) -> Option<Self> {
        let of = |directive: &str| text.lines().find_map(|line| line.trim().strip_prefix(directive)).map(str::trim);
        let (major, minor) = of(".version")?.split_once('.')?;
        let version = Version::new(major.parse().ok()?, minor.trim().parse().ok()?);
        let target = of(".target")?.split(',').next()?.trim().strip_prefix("sm_")?;
        let (digits, reach) = match target.strip_suffix('a') {
            Some(digits) => (digits, Reach::None),
            None => target.strip_suffix('f').map_or((target, Reach::Later), |digits| (digits, Reach::Family)),
        };
        let number: u32 = digits.parse().ok()?;
        Some(Self { text, version, target: Version::of_architecture(number), reach })
    }
}

impl Version {
    /// A version by its parts.
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// The compute capability of an architecture's number, which is 90 for `sm_90`.
    pub(super) const fn of_architecture(number: u32) -> Self {
        Self::new(number / 10, number % 10)
    }

    /// The newest PTX that a driver of this CUDA version reads: the inverse of [`Ptx::needed_driver`].
    pub fn newest_ptx(self) -> Self {
        match (self.major, self.minor) {
            (..=8, _) => Self::new(5, 0),
            (9, minor) => Self::new(6, minor),
            (10, minor) => Self::new(6, minor + 3),
            (11, minor) => Self::new(7, minor),
            (12, minor @ 0..=5) => Self::new(8, minor),
            (12, minor) => Self::new(8, minor - 1),
            (major, minor) => Self::new(major - 4, minor),
        }
    }

    /// From CUDA's number, which is 12040 for 12.4.
    pub(super) const fn of_cuda(number: u32) -> Self {
        Self::new(number / 1000, number % 1000 / 10)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_head_says() {
        let ptx = |text| Ptx::parse(text).map(|ptx| (ptx.version, ptx.target, ptx.needed_driver()));
        let v = Version::new;
        assert_eq!(ptx("//\n.version 7.0\n.target sm_80\n"), Some((v(7, 0), v(8, 0), v(11, 0))));
        assert_eq!(ptx(".version 7.4\n.target sm_86, debug\n"), Some((v(7, 4), v(8, 6), v(11, 4))));
        assert_eq!(ptx(".version 8.7\n.target sm_120a\n"), Some((v(8, 7), v(12, 0), v(12, 8))));
        assert_eq!(ptx(".version 9.0\n.target sm_100\n").map(|of| of.2), Some(v(13, 0)));
        assert_eq!(ptx(".target sm_80\n"), None);
        assert_eq!(ptx(".version 8.7\n.target sm_90x\n"), None);
        assert_eq!(Version::of_cuda(11040), v(11, 4));
        for (cuda, newest) in [(v(10, 2), v(6, 5)), (v(11, 4), v(7, 4)), (v(12, 5), v(8, 5)), (v(13, 0), v(9, 0))] {
            assert_eq!(cuda.newest_ptx(), newest);
        }
        // A driver reads what needs it, and what needs an older one.
        for text in [".version 7.0\n.target sm_80\n", ".version 8.5\n.target sm_80\n", ".version 8.7\n.target sm_80\n"]
        {
            let ptx = Ptx::parse(text).expect("a head");
            assert_eq!(ptx.needed_driver().newest_ptx(), ptx.version);
        }
    }

    #[test]
    fn gpus_run_what_was_made_for_them() {
        let runs = |target: &str, major, minor| {
            let text = format!(".version 8.7\n.target {target}\n").leak();
            Ptx::parse(text).expect("a head").runs_on(Version::new(major, minor))
        };
        assert!(runs("sm_80", 8, 0) && runs("sm_80", 9, 0) && runs("sm_80", 12, 0) && !runs("sm_86", 8, 0));
        assert!(runs("sm_90a", 9, 0) && !runs("sm_90a", 10, 0) && !runs("sm_90a", 8, 9));
        assert!(runs("sm_100f", 10, 0) && runs("sm_100f", 10, 3) && !runs("sm_100f", 12, 0));
    }

    /// Global memory is touched after the wait alone, in every kernel.
    #[test]
    fn kernels_that_start_early_wait_first() {
        let ptx = Ptx::starting_early();
        assert_eq!((ptx.version, ptx.target), (Version::new(7, 8), Version::new(9, 0)));
        assert_eq!(ptx.needed_driver(), Version::new(11, 8));
        let mut kernels = 0;
        for kernel in ptx.text().split(".entry ").skip(1) {
            let body = kernel.split_once("{\n").expect("a body").1;
            let instructions = body.lines().filter(|line| !line.trim_start().starts_with('.'));
            let first: Vec<&str> = instructions.take(2).map(str::trim).collect();
            assert_eq!(first, ["griddepcontrol.wait;", "griddepcontrol.launch_dependents;"], "{}", &kernel[..40]);
            assert_eq!(kernel.matches("griddepcontrol").count(), 2);
            kernels += 1;
        }
        assert_eq!(kernels, Ptx::bundled().entry_points().count());
        // The kernel before may still write what the read-only path takes for constant.
        let all = Ptx::bundled().text().replace("ld.global.nc.", "ld.global.");
        assert!(!all.contains(".nc.") && Ptx::bundled().text().contains("ld.global.nc."));
        let without: String = ptx.text().lines().filter(|line| !line.contains("griddepcontrol")).skip(2).collect();
        assert_eq!(without, all.lines().skip(2).collect::<String>(), "nothing else has changed");
    }

    #[test]
    fn the_bundled_kernels_load_on_old_drivers() {
        let ptx = Ptx::bundled();
        assert!(ptx.needed_driver() <= Version::new(11, 4), "PTX {}", ptx.version);
        assert_eq!(ptx.target, Version::new(8, 0));
        assert!(ptx.text.ends_with('\0') && !ptx.text[..ptx.text.len() - 1].contains('\0'));
    }
}
