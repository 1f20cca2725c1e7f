//! Settings and selections as data: what is written is read back, under the names that the command and the C interface use,
//! and what could not have been built in code is refused as data too.

use serde_json::{Value, from_str, from_value, json, to_value};
use wtacrs_core::guesses::PredictorSettings;
use wtacrs_core::layers::{Contraction, Linear, TensorMul};
use wtacrs_core::sampling::design::{BuiltIn, Design};
use wtacrs_core::{Keep, Randomness, Selection, Weights};

/// Writes `value`, reads it back and returns what was written.
#[track_caller]
fn round_trip<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(value: T) -> Value {
    let written = to_value(&value).expect("serialises");
    assert_eq!(from_str::<T>(&written.to_string()).expect("is what was written"), value);
    written
}

fn selection() -> Selection {
    let weights = Weights::new(&[9.0, 1.0, 2.0, 0.5, 3.0]).expect("finite");
    BuiltIn::WtaPivotal.select_seeded(&weights, weights.budget(Keep::Rows(3)).expect("fits"), Randomness::new(1, 0))
}

#[test]
fn settings() {
    assert_eq!(round_trip(Keep::Fraction(0.3)), json!({"Fraction": 0.3}));
    assert_eq!(round_trip(Keep::Rows(7)), json!({"Rows": 7}));
    assert_eq!(round_trip(Randomness::new(u64::MAX, 5)), json!({"seed": u64::MAX, "offset": 5}));
    for design in BuiltIn::ALL {
        assert_eq!(round_trip(design), json!(design.name()));
    }
    round_trip(Linear::new(Keep::Rows(3)));
    round_trip(TensorMul::new(Contraction::Exact, Contraction::Sampled(Keep::Fraction(0.5))));
    round_trip(PredictorSettings::default());
}

/// A file that was written before a setting existed goes on being read.
#[test]
fn settings_left_out_are_the_defaults() {
    assert_eq!(
        from_value::<PredictorSettings>(json!({})).expect("all fields have defaults"),
        PredictorSettings::default()
    );
}

#[test]
fn a_selection() {
    let written = round_trip(selection());
    assert_eq!(written["pairs"], 5);
    assert_eq!(written["indices"].as_array().expect("an array").len(), 3);
}

#[test]
fn an_impossible_selection_is_refused() {
    let written = to_value(selection()).expect("serialises");
    for (field, value, error) in [
        ("pairs", json!(2), "2"),
        ("winners", json!(4), "4"),
        ("indices", json!([2, 1, 4]), "1"),
        ("scales", json!([1.0, 1.0]), "2"),
        ("scales", json!([1.0, -1.0, 1.0]), "-1"),
    ] {
        let mut changed = written.clone();
        changed[field] = value.clone();
        let refused = from_value::<Selection>(changed).expect_err(field).to_string();
        assert!(refused.contains(error), "{field} = {value}: {refused}");
    }
}
