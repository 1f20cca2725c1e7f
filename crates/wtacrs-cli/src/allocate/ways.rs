//! The ways to divide memory among layers that are compared: one fraction of every layer's rows, or rows and bits shared out.

use crate::labels::MemoryShare;
use serde::{Serialize, Serializer};
use std::fmt;
use wtacrs_core::allocation::{AllocationError, Layer, LayerBudget, within_bytes};
use wtacrs_core::product::Packing;
use wtacrs_core::sampling::Selection;

/// A way to divide memory among layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The same share of the bytes of every layer, in exact copies of rows.
    FractionNative,
    /// The same share of the bytes of every layer, in rows of 4 bits.
    Fraction4Bits,
    /// Rows and bits of each layer so that the sum of squared errors is least.
    SharedOut,
}

/// What the budgets of all layers come to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Total {
    pub(super) bytes: u64,
    /// The root mean square of the layers' errors to expect.
    pub(super) error: f64,
}

impl Way {
    /// All of them, in the order of tables.
    pub const ALL: [Self; 3] = [Self::FractionNative, Self::Fraction4Bits, Self::SharedOut];

    /// The name for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::FractionNative => "one fraction, native",
            Self::Fraction4Bits => "one fraction, 4 bits",
            Self::SharedOut => "shared out",
        }
    }

    /// A budget for each layer; none for a layer of whose share not even one row can be kept.
    ///
    /// # Errors
    ///
    /// If the share is too small to be shared out.
    pub(super) fn budgets(
        self,
        layers: &[Layer],
        share: MemoryShare,
    ) -> Result<Vec<Option<LayerBudget>>, AllocationError> {
        let fraction =
            |packing| layers.iter().map(|layer| most_rows(layer, packing, part(native_bytes(layer), share))).collect();
        Ok(match self {
            Self::FractionNative => fraction(Packing::Native),
            Self::Fraction4Bits => fraction(Packing::Bits4),
            Self::SharedOut => {
                let bytes = part(layers.iter().map(native_bytes).sum(), share);
                within_bytes(layers, bytes)?.into_iter().map(Some).collect()
            }
        })
    }
}

/// The name in JSON and CSV.
impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::FractionNative => "fraction_native",
            Self::Fraction4Bits => "fraction_4_bits",
            Self::SharedOut => "shared_out",
        })
    }
}

impl Serialize for Way {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Bytes of H in its own type.
pub(super) fn native_bytes(layer: &Layer) -> u64 {
    layer.curve.pairs() as u64 * Packing::Native.row_bytes(layer.columns, layer.element_bytes)
}

/// Bytes and error of budgets; none if a layer has none.
pub(super) fn total(layers: &[Layer], budgets: &[Option<LayerBudget>]) -> Option<Total> {
    let budgets: Vec<LayerBudget> = budgets.iter().copied().collect::<Option<_>>()?;
    let both = || layers.iter().zip(&budgets);
    let bytes = both().map(|(layer, &budget)| layer.bytes(budget)).sum();
    Some(Total { bytes, error: root_mean(both().map(|(layer, &budget)| layer.squared_error(budget))) })
}

/// The root of the mean of squares, of which there is at least one.
pub(super) fn root_mean(squares: impl ExactSizeIterator<Item = f64>) -> f64 {
    let layers = squares.len() as f64;
    (squares.sum::<f64>() / layers).sqrt()
}

fn part(bytes: u64, share: MemoryShare) -> u64 {
    (bytes as f64 * share.get()) as u64
}

/// The most rows that fit: all of them without an index and a scale, or some with both.
fn most_rows(layer: &Layer, packing: Packing, bytes: u64) -> Option<LayerBudget> {
    let all = LayerBudget { rows: layer.curve.pairs(), packing };
    if layer.bytes(all) <= bytes {
        return Some(all);
    }
    let row = packing.row_bytes(layer.columns, layer.element_bytes) + Selection::BYTES_PER_PAIR as u64;
    let rows = ((bytes / row) as usize).min(all.rows - 1);
    (rows > 0).then_some(LayerBudget { rows, packing })
}

#[cfg(test)]
mod tests {
    use super::*;
    use wtacrs_core::allocation::Curve;
    use wtacrs_core::sampling::Weights;

    /// Rows of 256 elements of 2 bytes: 512 bytes, 136 with 4 bits, and 12 of index and scale.
    fn layer(norms: &[f64], length: f64) -> Layer {
        let squares: Vec<f64> = norms.iter().map(|norm| (norm / length).powi(2)).collect();
        let rows: Vec<usize> = (1..=norms.len()).collect();
        let curve = Curve::of(&Weights::new(norms).expect("valid"), &squares, &rows).expect("valid");
        Layer { columns: 256, element_bytes: 2, noise: 0.01, curve }
    }

    fn share(share: f64) -> MemoryShare {
        MemoryShare::new(share).expect("a share")
    }

    fn rows(way: Way, layers: &[Layer], part: f64) -> Vec<Option<usize>> {
        let budgets = way.budgets(layers, share(part)).expect("enough bytes");
        budgets.into_iter().map(|budget| budget.map(|budget| budget.rows)).collect()
    }

    #[test]
    fn one_fraction_is_what_fits() {
        let layers = [layer(&[1.0; 100], 10.0), layer(&[1.0; 20], 5.0)];
        // Bytes: 51200 and 10240.
        assert_eq!(rows(Way::FractionNative, &layers, 0.1), [Some(5120 / 524), Some(1024 / 524)]);
        assert_eq!(rows(Way::Fraction4Bits, &layers, 0.1), [Some(5120 / 148), Some(1024 / 148)]);
        // All rows need no index and no scale.
        assert_eq!(rows(Way::FractionNative, &layers, 1.0), [Some(100), Some(20)]);
        assert_eq!(rows(Way::Fraction4Bits, &layers, 0.27), [Some(100), Some(20)]);
        assert_eq!(rows(Way::Fraction4Bits, &layers, 0.265), [Some(13568 / 148), Some(2713 / 148)]);
        assert_eq!(rows(Way::FractionNative, &layers, 0.02), [Some(1), None]);
        assert!(total(&layers, &Way::FractionNative.budgets(&layers, share(0.02)).expect("fits")).is_none());
    }

    #[test]
    fn shared_out_errs_least() {
        // One token is all of the first gradient; the second one's tokens all count.
        let mut norms = [0.01; 100];
        norms[7] = 10.0;
        let layers = [layer(&norms, 10.0), layer(&[1.0; 100], 50.0)];
        for part in [0.02, 0.1, 0.3, 0.9] {
            let of = |way: Way| total(&layers, &way.budgets(&layers, share(part)).expect("fits")).expect("some rows");
            let shared = of(Way::SharedOut);
            assert!(shared.bytes as f64 <= part * 102_400.0);
            assert!(Way::ALL.into_iter().all(|way| of(way).error >= shared.error), "{part}");
        }
        assert!(Way::SharedOut.budgets(&layers, share(0.0001)).is_err());
        assert_eq!(
            total(&layers, &Way::SharedOut.budgets(&layers, share(1.0)).expect("fits")).map(|all| all.error),
            Some(0.0)
        );
    }
}
