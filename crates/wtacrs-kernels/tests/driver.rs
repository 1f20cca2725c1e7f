//! The driver layer on a driver that records every call: its calls when it opens and when it runs, and its errors on
//! machines that cannot run the kernels.

use crate::fake::{Call, Fake};
use std::ptr;
use std::sync::Arc;
use wtacrs_kernels::kernel::matrix::Spacing;
use wtacrs_kernels::kernel::{ENTRY_POINTS, ROW_NORMS_BF16, row_norms};
use wtacrs_kernels::launch::driver::{Context, Cubin, Driver, DriverError, Image, Installation, Ptx, Stream, Version};
use wtacrs_kernels::launch::{Launcher, Shape};

const SHAPE: Shape = Shape { grid: [3, 1, 2], block: 128, shared_bytes: 4096, cooperative: false };

fn installed(fake: Fake) -> Arc<Installation<Fake>> {
    Arc::new(Installation::new(fake).expect("it will do"))
}

fn launch(driver: &Driver<Fake>, stream: Stream, shape: Shape) -> Result<(), DriverError> {
    let args = row_norms::Args {
        x: ptr::null(),
        leading: 7,
        spacing: Spacing::even(0),
        rows: 0,
        columns: 0,
        theta: ptr::null(),
        norms: ptr::null_mut(),
        directions: ptr::null_mut(),
        cached: std::ptr::null(),
        placement: std::ptr::null(),
        clamp: 0.0,
        exchange: std::ptr::null_mut(),
        exchange_words: 0,
    };
    // SAFETY: the fake runs nothing, and knows no streams.
    unsafe { driver.on(stream).launch(&ROW_NORMS_BF16, shape, &args) }
}

#[test]
fn a_launch_is_one_call_on_the_stream_it_was_given() {
    let driver = Driver::open_with(installed(Fake::default()), 0).expect("opens");
    let calls = Fake::of(&driver);
    calls.forget();
    let stream = Stream(ptr::without_provenance_mut(0x50));
    launch(&driver, stream, SHAPE).expect("launches");
    let cooperative = Shape { cooperative: true, ..SHAPE };
    launch(&driver, Stream(ptr::null_mut()), cooperative).expect("launches");
    let of = |stream, shape| Call::Launch { kernel: "row_norms_bf16", stream, shape, context: Context(0x1000) };
    assert_eq!(calls.list(), [of(0x50, SHAPE), of(0, cooperative)]);
}

#[test]
fn the_bundled_ptx_has_the_kernels_of_the_table() {
    let mut in_text: Vec<_> = Ptx::bundled().entry_points().collect();
    let mut in_table = ENTRY_POINTS.to_vec();
    in_text.sort_unstable();
    in_table.sort_unstable();
    assert_eq!(in_text, in_table, "run cargo xtask ptx");
}

/// "\x7fELF" in zlib's format, without compression.
const CODE: &[u8] = &[0x78, 1, 1, 4, 0, 0xFB, 0xFF, 0x7F, b'E', b'L', b'F', 3, 0xAD, 1, 0x57];

#[test]
fn machine_code_is_preferred_to_ptx() {
    // SAFETY: the fake driver does not look into them.
    const CUBINS: &[Cubin] = unsafe { &[Cubin::new(86, CODE), Cubin::new(80, CODE)] };
    let opened = |fake: Fake| {
        let installation = Arc::new(Installation::with_cubins(fake, CUBINS).expect("it will do"));
        let driver = Driver::open_with(installation, 0).expect("opens");
        let loads: Vec<bool> = Fake::of(&driver)
            .list()
            .into_iter()
            .filter_map(|call| if let Call::Load { is_ptx, .. } = call { Some(is_ptx) } else { None })
            .collect();
        (driver.loaded().image, loads)
    };
    let ptx = Image::Ptx(Ptx::bundled().version);
    assert_eq!(opened(Fake::default()), (Image::Cubin(Version::new(8, 6)), vec![false]));
    let early = Image::Ptx(Ptx::starting_early().version);
    assert_eq!(opened(Fake { capability: (9, 0), ..Fake::default() }), (early, vec![true]));
    assert_eq!(opened(Fake { capability: (9, 0), version: 12_020, ..Fake::default() }), (ptx, vec![true]));
    // A driver that is older than the assembler compiles the PTX.
    assert_eq!(opened(Fake { refuses_cubins: true, ..Fake::default() }), (ptx, vec![false, false, true]));
    assert_eq!(ptx.to_string(), format!("PTX {}, compiled by the driver", Ptx::bundled().version));
    assert_eq!(Image::Cubin(Version::new(12, 0)).to_string(), "machine code for sm_120");
}

#[test]
fn kernels_start_early_where_the_gpu_and_the_driver_can() {
    let early = |fake: Fake| {
        let driver = Driver::open_with(installed(fake), 0).expect("opens");
        Fake::of(&driver).forget();
        let cooperative = Shape { cooperative: true, ..SHAPE };
        for shape in [SHAPE, cooperative] {
            launch(&driver, Stream(ptr::null_mut()), shape).expect("launches");
        }
        Fake::of(&driver).list().iter().map(|call| *call == Call::LaunchEarly("row_norms_bf16")).collect::<Vec<_>>()
    };
    let hopper = || Fake { capability: (9, 0), ..Fake::default() };
    assert_eq!(early(hopper()), [true, false], "blocks that wait for one another start together");
    assert_eq!(early(Fake { version: 12_020, ..hopper() }), [false, false], "graphs without it");
    assert_eq!(early(Fake { starts_early: false, ..hopper() }), [false, false]);
    assert_eq!(early(Fake::default()), [false, false]);
    let error = {
        let driver = Driver::open_with(installed(Fake { fails: Some("cuLaunchKernelEx"), ..hopper() }), 0);
        launch(&driver.expect("opens"), Stream(ptr::null_mut()), SHAPE).expect_err("fails").to_string()
    };
    assert_eq!(error, "cuLaunchKernelEx of row_norms_bf16 failed with CUDA_ERROR_FAKE (999)");
}

#[test]
fn kernels_are_loaded_once_for_each_context() {
    let installation = installed(Fake::default());
    let loads = || installation.calls().list().iter().filter(|call| matches!(call, Call::Load { .. })).count();
    let first = Driver::open_with(Arc::clone(&installation), 0).expect("opens");
    let again = Driver::open_with(Arc::clone(&installation), 0).expect("opens");
    assert_eq!((first.context(), loads()), (again.context(), 1));
    let other = Driver::open_with(Arc::clone(&installation), 1).expect("opens");
    assert_eq!((other.context(), loads()), (Context(0x1001), 2));
    // A framework's context, and one that took a destroyed one's place.
    installation.calls().enter(Context(0x77), 5);
    let current = || Driver::current_with(Arc::clone(&installation)).expect("opens");
    assert_eq!((current().context(), loads()), (Context(0x77), 3));
    assert_eq!((current().context(), loads()), (Context(0x77), 3));
    installation.calls().enter(Context(0x77), 6);
    assert_eq!((current().context(), loads()), (Context(0x77), 4));
    // All of a context's kernels were asked for, and given all the shared memory there is, before any is launched.
    let raised: Vec<Call> =
        installation.calls().list().into_iter().filter(|c| matches!(c, Call::Allow { .. })).collect();
    assert_eq!(raised.len(), 4 * ENTRY_POINTS.len());
    assert!(raised.iter().all(|call| matches!(call, Call::Allow { bytes: 101_376, .. })));
}

/// A framework's context cannot be distinguished from a later one with the same handle; primary contexts are never destroyed.
#[test]
fn drivers_that_do_not_number_contexts() {
    let installation = installed(Fake { version: 11_040, numbers_contexts: false, ..Fake::default() });
    let count = |wanted: fn(&Call) -> bool| installation.calls().list().iter().filter(|call| wanted(call)).count();
    let loads = || count(|call| matches!(call, Call::Load { .. }));
    let current = || Driver::current_with(Arc::clone(&installation)).expect("opens");
    // The first GPU's primary context, which a framework has made current.
    installation.calls().enter(Context(0x1000), 1);
    assert_eq!((current().context(), loads()), (Context(0x1000), 1));
    assert_eq!((current().context(), loads()), (Context(0x1000), 1));
    assert_eq!(count(|call| matches!(call, Call::Retain(_))), 1);
    let opened = Driver::open_with(Arc::clone(&installation), 0).expect("opens");
    assert_eq!((opened.context(), loads()), (Context(0x1000), 1));
    // Two contexts with one handle, one after the other.
    for (id, expected) in [(5, 2), (6, 3)] {
        installation.calls().enter(Context(0x77), id);
        let driver = current();
        assert_eq!((driver.context(), loads()), (Context(0x77), expected));
    }
}

#[test]
fn what_the_device_is() {
    let installation = installed(Fake::default());
    assert_eq!((installation.version(), installation.device_count()), (Version::new(12, 4), Ok(2)));
    let device = installation.device(1).expect("there are two");
    assert_eq!((device.name.as_str(), device.compute_capability), ("Fake 1", (8, 6)));
    assert_eq!((device.multiprocessors, device.shared_bytes, device.memory_bytes), (84, 101_376, 24 << 30));
    assert_eq!(installation.device(2), Err(DriverError::NoSuchDevice { ordinal: 2, count: 2 }));
}

#[test]
fn machines_that_will_not_do() {
    let refused = |fake: Fake| match Installation::new(fake) {
        Err(error) => error,
        Ok(installation) => Driver::open_with(Arc::new(installation), 0).expect_err("must be refused"),
    };
    let message = |fake| refused(fake).to_string();
    let old = Fake { version: 10_020, ..Fake::default() };
    let text = message(old);
    let expected = "the CUDA driver is too old: it is of CUDA 10.2 and reads PTX 6.5, and the kernels' PTX 7.";
    assert!(text.starts_with(expected), "{text}");
    assert_eq!(refused(Fake { devices: 0, ..Fake::default() }), DriverError::NoDevice);
    assert_eq!(
        message(Fake { capability: (7, 5), ..Fake::default() }),
        "Fake 0 has compute capability 7.5, and the kernels need 8.0 or later"
    );
    assert_eq!(
        message(Fake { fails: Some("cuModuleLoadDataEx"), ..Fake::default() }),
        "cuModuleLoadDataEx failed with CUDA_ERROR_FAKE (999)"
    );
    let first = ENTRY_POINTS[0];
    assert_eq!(
        message(Fake { fails: Some("cuFuncSetAttribute"), ..Fake::default() }),
        format!("cuFuncSetAttribute of {first} failed with CUDA_ERROR_FAKE (999)")
    );
    assert_eq!(message(Fake { fails: Some("cuInit"), ..Fake::default() }), "cuInit failed with CUDA_ERROR_FAKE (999)");
    let installation = installed(Fake::default());
    assert_eq!(
        Driver::current_with(installation).expect_err("none").to_string(),
        "no CUDA context is current on this thread"
    );
}

#[test]
fn a_failed_launch_names_its_kernel() {
    let driver =
        Driver::open_with(installed(Fake { fails: Some("cuLaunchKernel"), ..Fake::default() }), 0).expect("opens");
    let error = launch(&driver, Stream(ptr::null_mut()), SHAPE).expect_err("fails");
    assert_eq!(error.to_string(), "cuLaunchKernel of row_norms_bf16 failed with CUDA_ERROR_FAKE (999)");
}

/// On a machine without a driver, or with one: no panic in either case.
#[test]
fn this_machine() {
    match Installation::driver_version() {
        Ok(version) => assert!(version > Version::new(1, 0)),
        Err(error) => assert_eq!(error, DriverError::NoLibrary),
    }
    if let Err(error) = Driver::open(0) {
        assert!(!error.to_string().is_empty());
        assert!(Driver::current().is_err());
    }
}
