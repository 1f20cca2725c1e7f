//! Recordings, sound and corrupt, through the reader's public interface.

use half::bf16;
use ndarray::array;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use std::cell::Cell;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use wtacrs_cli::input::{Matrix, Recording, RecordingError, RecordingKeys, Step};

/// The longest header that is read.
const LONGEST_HEADER: u64 = 1 << 24;

type Entry<'a> = (&'a str, Dtype, Vec<usize>, Vec<u8>);

fn file(entries: &[Entry<'_>]) -> Vec<u8> {
    let views = entries.iter().map(|(name, dtype, shape, data)| {
        (*name, TensorView::new(*dtype, shape.clone(), data).expect("a valid tensor"))
    });
    safetensors::serialize(views, None).expect("valid tensors")
}

fn f32s<'a>(name: &'a str, shape: &[usize], values: &[f32]) -> Entry<'a> {
    (name, Dtype::F32, shape.to_vec(), values.iter().flat_map(|value| value.to_le_bytes()).collect())
}

/// Two steps of three tokens with two features.
fn parts() -> [Entry<'static>; 3] {
    let h: Vec<f32> = (0..12).map(|value| value as f32 - 4.0).collect();
    [
        f32s("h", &[2, 3, 2], &h),
        f32s("dz_norm", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 0.0]),
        f32s("g_norm", &[2], &[10.0, 20.0]),
    ]
}

fn with(part: usize, entry: Entry<'static>) -> Vec<u8> {
    let mut parts = parts();
    parts[part] = entry;
    file(&parts)
}

/// Opens and reads every step.
fn read(bytes: &[u8]) -> Result<Vec<Step>, RecordingError> {
    let mut recording = Recording::open(Cursor::new(bytes), &RecordingKeys::default())?;
    (0..recording.steps()).map(|step| recording.read_step(step)).collect()
}

fn refusal(bytes: &[u8]) -> String {
    read(bytes).expect_err("must be refused").to_string()
}

fn with_header(length: u64, header: &str, data: &[u8]) -> Vec<u8> {
    [&length.to_le_bytes(), header.as_bytes(), data].concat()
}

#[test]
fn steps_in_any_order() {
    let bytes = file(&parts());
    let mut recording = Recording::open(Cursor::new(&bytes), &RecordingKeys::default()).expect("a recording");
    assert_eq!((recording.steps(), recording.tokens(), recording.in_features()), (2, 3, 2));
    for _ in 0..2 {
        let step = recording.read_step(1).expect("a step");
        assert_eq!(step.h, Matrix::F32(array![[2.0, 3.0], [4.0, 5.0], [6.0, 7.0]]));
        assert_eq!((step.dz_norms, step.g_norm), (vec![4.0, 5.0, 0.0], 20.0));
        let step = recording.read_step(0).expect("a step");
        assert_eq!(step.h, Matrix::F32(array![[-4.0, -3.0], [-2.0, -1.0], [0.0, 1.0]]));
        assert_eq!((step.dz_norms, step.g_norm), (vec![1.0, 2.0, 3.0], 10.0));
    }
}

#[test]
fn other_names_and_types() {
    let h: Vec<u8> = [0.5, -2.0].into_iter().flat_map(|v| bf16::from_f32(v).to_le_bytes()).collect();
    let bytes =
        file(&[("x", Dtype::BF16, vec![2, 1, 1], h), f32s("dz", &[2, 1], &[1.0; 2]), f32s("g", &[2], &[1.0; 2])]);
    let keys = RecordingKeys { h: "x".to_owned(), dz_norm: "dz".to_owned(), g_norm: "g".to_owned() };
    let mut recording = Recording::open(Cursor::new(&bytes), &keys).expect("a recording");
    let step = recording.read_step(1).expect("a step");
    assert_eq!(step.h, Matrix::Bf16(array![[bf16::from_f32(-2.0)]]));
    assert_eq!(refusal(&bytes), "there is no tensor 'h', only 'dz', 'g', 'x'");
}

#[test]
fn shapes_and_types_that_do_not_fit() {
    for (part, entry, message) in [
        (0, f32s("h", &[2, 6], &[1.0; 12]), "tensor 'h' has shape [2, 6]: it must be steps × tokens × in_features"),
        (1, f32s("dz_norm", &[6], &[1.0; 6]), "tensor 'dz_norm' has shape [6]: it must be steps × tokens"),
        (2, f32s("g_norm", &[2, 1], &[1.0; 2]), "tensor 'g_norm' has shape [2, 1]: it must be one norm for each step"),
        (1, f32s("dz_norm", &[3, 3], &[1.0; 9]), "tensor 'dz_norm' is for 3 steps, but H has 2"),
        (2, f32s("g_norm", &[1], &[1.0]), "tensor 'g_norm' is for 1 steps, but H has 2"),
        (1, f32s("dz_norm", &[2, 2], &[1.0; 4]), "tensor 'dz_norm' is for 2 tokens, but H has 3"),
        (0, f32s("h", &[0, 3, 2], &[]), "tensor 'h' has shape [0, 3, 2]: it is empty"),
        (0, f32s("h", &[2, 0, 2], &[]), "tensor 'h' has shape [2, 0, 2]: it is empty"),
        (0, f32s("h", &[2, 3, 0], &[]), "tensor 'h' has shape [2, 3, 0]: it is empty"),
        (0, ("h", Dtype::I64, vec![2, 3, 1], vec![0; 48]), "tensor 'h' is of type I64: F32, F16 and BF16 can be read"),
    ] {
        assert_eq!(refusal(&with(part, entry)), message);
    }
    assert_eq!(refusal(&file(&parts()[..2])), "there is no tensor 'g_norm', only 'dz_norm', 'h'");
}

#[test]
fn values_that_are_refused() {
    let mut h = [1.0; 12];
    h[9] = f32::NAN;
    assert_eq!(
        refusal(&with(0, f32s("h", &[2, 3, 2], &h))),
        "step 1: tensor 'h' is NaN at row 1, column 1: all values must be finite"
    );
    for (value, shown) in [(f32::INFINITY, "inf"), (-1.0, "-1"), (f32::NAN, "NaN")] {
        assert_eq!(
            refusal(&with(1, f32s("dz_norm", &[2, 3], &[1.0, 1.0, 1.0, 1.0, 1.0, value]))),
            format!("step 1: tensor 'dz_norm' is {shown} for token 2: a norm must be finite and not negative")
        );
        assert_eq!(
            refusal(&with(2, f32s("g_norm", &[2], &[1.0, value]))),
            format!("step 1: tensor 'g_norm' is {shown}: ‖dW‖ must be finite and more than 0")
        );
    }
    assert!(refusal(&with(2, f32s("g_norm", &[2], &[0.0, 1.0]))).starts_with("step 0: tensor 'g_norm' is 0: "));
}

#[test]
fn files_cut_off_anywhere() {
    let whole = file(&parts());
    assert!(read(&whole).is_ok());
    for length in 0..whole.len() {
        refusal(&whole[..length]);
    }
    assert!(refusal(&whole[..whole.len() - 1]).starts_with("the file is "));
    assert!(refusal(&[&whole[..], &[0]].concat()).starts_with("the file is "));
    assert!(refusal(&whole[..20]).starts_with("not a readable safetensors file: "));
}

#[test]
fn corrupt_headers() {
    for header in ["", "{", "[]", "nonsense", r#"{"h":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}}"#] {
        let message = refusal(&with_header(header.len() as u64, header, &[0; 4]));
        assert!(message.starts_with("not a readable safetensors file: "), "{message}");
    }
    for length in [u64::MAX, u64::MAX - 7, 1 << 40, 5] {
        assert!(refusal(&with_header(length, "{}", &[])).starts_with("not a readable safetensors file: "));
    }
    let long = " ".repeat(LONGEST_HEADER as usize + 1);
    assert!(refusal(&with_header(long.len() as u64, &long, &[])).starts_with("its header is 16777217 bytes long"));
    let (huge, most) = (u64::MAX, u64::MAX / 4);
    for header in [
        format!(r#"{{"h":{{"dtype":"F32","shape":[{huge},4,1],"data_offsets":[0,4]}}}}"#),
        format!(r#"{{"h":{{"dtype":"U8","shape":[{huge}],"data_offsets":[0,{huge}]}}}}"#),
        format!(r#"{{"h":{{"dtype":"F32","shape":[{most},0,1],"data_offsets":[0,0]}}}}"#),
        r#"{"h":{"dtype":"F32","shape":[1,1,1],"data_offsets":[8,4]}}"#.to_owned(),
        r#"{"h":{"dtype":"F32","shape":[1,1,1],"data_offsets":[4,8]}}"#.to_owned(),
        "[".repeat(100_000),
    ] {
        refusal(&with_header(header.len() as u64, &header, &[0; 4]));
    }
}

#[test]
fn any_flipped_byte_is_an_error_or_a_recording() {
    let whole = file(&parts());
    for at in 0..whole.len() {
        for flip in [1, 0x20, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            if let Err(error) = read(&bytes) {
                assert!(!error.to_string().contains(char::is_control), "{error:?}");
            }
        }
    }
}

/// A file that records how much is read of it at once.
struct Traced<'a> {
    bytes: Cursor<&'a [u8]>,
    most_at_once: &'a Cell<usize>,
}

impl Read for Traced<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.most_at_once.set(self.most_at_once.get().max(buffer.len()));
        self.bytes.read(buffer)
    }
}

impl Seek for Traced<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.bytes.seek(to)
    }
}

#[test]
fn no_more_than_a_step_is_read_at_once() {
    let (steps, tokens, features) = (50, 30, 20);
    let bytes = file(&[
        f32s("h", &[steps, tokens, features], &vec![1.0; steps * tokens * features]),
        f32s("dz_norm", &[steps, tokens], &vec![1.0; steps * tokens]),
        f32s("g_norm", &[steps], &vec![1.0; steps]),
    ]);
    let most_at_once = Cell::new(0);
    let file = Traced { bytes: Cursor::new(&bytes), most_at_once: &most_at_once };
    let mut recording = Recording::open(file, &RecordingKeys::default()).expect("a recording");
    for step in 0..steps {
        recording.read_step(step).expect("a step");
    }
    assert_eq!(most_at_once.get(), tokens * features * size_of::<f32>());
}
