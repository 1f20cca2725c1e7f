//! Chooses the kernel of a product, its number of blocks, and into how many ranges the rows are cut.
//!
//! The choice depends on sizes and the number of multiprocessors alone, never on time or addresses, so equal calls give
//! equal bits.

use crate::kernel::gather_gemm::{Args, TileSizes, partial_leading};
use crate::kernel::matrix::RowLayout;
use crate::kernel::{self, split_reduce};
use crate::launch::{Kernel, Shape};

/// The operands' element type, and for f32 the precision of the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Multiplier {
    /// bf16 operands, sums in f32.
    Bf16,
    /// f16 operands, sums in f32.
    F16,
    /// f32 operands, products and sums in f32.
    F32,
    /// f32 operands rounded to tf32 (relative error 2⁻¹¹), sums in f32.
    Tf32,
}

/// How large a product is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProductSizes {
    /// Rows of dw.
    pub in_features: u32,
    /// Columns of dw.
    pub out_features: u32,
    /// Kept rows, which are summed over.
    pub rows: u32,
    /// Products.
    pub batch: u32,
}

/// The tile of dw that a block computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tile {
    /// 128 × 256: loads the least for each multiplication.
    Wide,
    /// 128 × 128.
    Square,
    /// 128 × 64, for few columns.
    Narrow,
    /// 64 × 128, for few rows.
    Flat,
}

impl Tile {
    /// All tiles.
    pub const ALL: [Self; 4] = [Self::Wide, Self::Square, Self::Narrow, Self::Flat];

    /// Rows and columns.
    fn sides(self) -> [u32; 2] {
        match self {
            Self::Wide => [128, 256],
            Self::Square => [128, 128],
            Self::Narrow => [128, 64],
            Self::Flat => [64, 128],
        }
    }
}

/// How a product is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiling {
    multiplier: Multiplier,
    sizes: ProductSizes,
    tile: Tile,
    /// Into how many ranges the rows are cut: `Args::splits` of the kernel.
    pub splits: u32,
    /// Bytes of the partial products; 0 if there is one split.
    pub partial_bytes: u64,
    /// The launch of [`SPLIT_REDUCE`](kernel::SPLIT_REDUCE), which follows if there is more than one split.
    pub reduce: Option<Shape>,
}

/// Bytes that a GPU moves between memory and its multiprocessors in the time of one mma step of all tensor cores. An
/// estimate, like all numbers below: it only decides between ways to compute the same product.
const BYTES_PER_CYCLE: f64 = 1500.0;
/// Cycles from a block's start to its first multiplication, and from its last to its end.
const BLOCK_CYCLES: f64 = 4000.0;
/// Cycles of a further launch.
const LAUNCH_CYCLES: f64 = 4000.0;
/// Most ranges of rows.
const MAX_SPLITS: u32 = 16;
/// Most blocks along grid.z.
const MAX_GRID_Z: u32 = 65_535;

/// A kernel's share of a multiprocessor.
struct Cost {
    /// Blocks that share one.
    resident: u64,
    /// Its cycles for a tile 32 rows deep; blocks that share it take them in turn.
    cycles: f64,
}

impl Cost {
    /// Registers and threads leave room for the residents on every GPU (a test reads the manifest). Cycles are arithmetic
    /// alone and rather too low: the sum is then cut less, which costs no memory.
    fn of(multiplier: Multiplier, tile: Tile) -> Self {
        let (resident, cycles) = match (multiplier, tile) {
            // 128 · 128 · 32 fma, of which a multiprocessor does 128 a cycle (half as many on sm_80).
            (Multiplier::F32, _) => (1, 4200.0),
            // Half as many products for each mma as of 16 bits; rounding takes more on top of that.
            (Multiplier::Tf32, _) => (1, 1200.0),
            (_, Tile::Wide) => (1, 1024.0),
            // A little more than half of a wide one, as both blocks load more.
            (_, Tile::Square) => (2, 600.0),
            // Three quarters of a square's are to be loaded.
            (_, Tile::Narrow | Tile::Flat) => (2, 400.0),
        };
        Self { resident, cycles }
    }
}

/// Chooses tiles and splits for a product.
pub fn tiling(multiplier: Multiplier, sizes: ProductSizes, multiprocessors: u32) -> Tiling {
    let mut best = (f64::INFINITY, Tile::Square, 1);
    for tile in tiles(multiplier).filter(|&tile| suits(tile, sizes)) {
        for splits in 1..=MAX_SPLITS {
            if splits > 1 && (splits > sizes.rows.div_ceil(32) || sizes.batch.saturating_mul(splits) > MAX_GRID_Z) {
                break;
            }
            let cycles = cycles(multiplier, sizes, multiprocessors.max(1), tile, splits);
            if cycles < best.0 {
                best = (cycles, tile, splits);
            }
        }
    }
    let (_, tile, splits) = best;
    Tiling::new(multiplier, sizes, tile, splits)
}

/// The tiles that have kernels, the preferred ones first.
fn tiles(multiplier: Multiplier) -> impl Iterator<Item = Tile> {
    let any = matches!(multiplier, Multiplier::Bf16 | Multiplier::F16);
    Tile::ALL.into_iter().filter(move |&tile| any || tile == Tile::Square)
}

/// Whether a tile is worth considering. Half a square loads more for each multiplication, so it is only where the other half
/// would be empty.
fn suits(tile: Tile, sizes: ProductSizes) -> bool {
    let leaves_half = |features: u32| (1..=64).contains(&(features % 128));
    match tile {
        Tile::Wide | Tile::Square => true,
        Tile::Narrow => leaves_half(sizes.out_features),
        Tile::Flat => leaves_half(sizes.in_features),
    }
}

/// An estimate of the time.
fn cycles(multiplier: Multiplier, sizes: ProductSizes, multiprocessors: u32, tile: Tile, splits: u32) -> f64 {
    let ProductSizes { in_features, out_features, rows, batch } = sizes;
    let [tile_rows, tile_columns] = tile.sides();
    let tiles = u64::from(in_features.div_ceil(tile_rows)) * u64::from(out_features.div_ceil(tile_columns));
    let blocks = tiles * u64::from(batch) * u64::from(splits);
    let depth = f64::from(rows.div_ceil(32).div_ceil(splits));
    let Cost { resident, cycles } = Cost::of(multiplier, tile);
    let waves = blocks.div_ceil(u64::from(multiprocessors) * resident) as f64;
    // Blocks that share a multiprocessor run at half the speed each.
    let sharing = if blocks <= u64::from(multiprocessors) { 1 } else { resident };
    let product = waves * (BLOCK_CYCLES + depth * cycles * sharing as f64);
    if splits == 1 {
        return product;
    }
    let sums = f64::from(in_features) * f64::from(out_features) * f64::from(batch) * 4.0;
    product + LAUNCH_CYCLES + sums * (2.0 * f64::from(splits) + 1.0) / BYTES_PER_CYCLE
}

impl Tiling {
    /// A tile and splits chosen by hand, for tests and measurements. f32 elements always have square tiles.
    pub fn new(multiplier: Multiplier, sizes: ProductSizes, tile: Tile, splits: u32) -> Self {
        let tile = tiles(multiplier).find(|&known| known == tile).unwrap_or(Tile::Square);
        let leading = partial_leading(sizes.out_features);
        let partials = u64::from(splits) * u64::from(sizes.batch) * u64::from(sizes.in_features) * leading;
        let reduce = split_reduce::shape(sizes.in_features, sizes.out_features, sizes.batch);
        Self {
            multiplier,
            sizes,
            tile,
            splits,
            partial_bytes: if splits > 1 { 4 * partials } else { 0 },
            reduce: (splits > 1).then_some(reduce),
        }
    }

    /// The kernel and its shape, for operands of a [`RowLayout`]. Nothing else depends on it.
    pub fn launch(&self, rows: RowLayout) -> (&'static Kernel<Args>, Shape) {
        let half = match (rows, self.tile) {
            (RowLayout::Whole, Tile::Wide) => self.shape(TileSizes::half(128, 256, 256)),
            (RowLayout::Whole, Tile::Narrow) => self.shape(TileSizes::half(128, 64, 128)),
            (RowLayout::Whole, Tile::Flat) => self.shape(TileSizes::half(64, 128, 128)),
            (RowLayout::Whole, Tile::Square) | (RowLayout::Ragged, _) => self.shape(TileSizes::half(128, 128, 128)),
            (RowLayout::Any, _) => self.shape(TileSizes::half(128, 128, 256)),
        };
        match (self.multiplier, rows, self.tile) {
            (Multiplier::Bf16, RowLayout::Whole, Tile::Wide) => (&kernel::GATHER_GEMM_BF16_WIDE, half),
            (Multiplier::Bf16, RowLayout::Whole, Tile::Square) => (&kernel::GATHER_GEMM_BF16_SQUARE, half),
            (Multiplier::Bf16, RowLayout::Whole, Tile::Narrow) => (&kernel::GATHER_GEMM_BF16_NARROW, half),
            (Multiplier::Bf16, RowLayout::Whole, Tile::Flat) => (&kernel::GATHER_GEMM_BF16_FLAT, half),
            (Multiplier::Bf16, RowLayout::Ragged, _) => (&kernel::GATHER_GEMM_BF16_RAGGED, half),
            (Multiplier::Bf16, RowLayout::Any, _) => (&kernel::GATHER_GEMM_BF16_ANY, half),
            (Multiplier::F16, RowLayout::Whole, Tile::Wide) => (&kernel::GATHER_GEMM_F16_WIDE, half),
            (Multiplier::F16, RowLayout::Whole, Tile::Square) => (&kernel::GATHER_GEMM_F16_SQUARE, half),
            (Multiplier::F16, RowLayout::Whole, Tile::Narrow) => (&kernel::GATHER_GEMM_F16_NARROW, half),
            (Multiplier::F16, RowLayout::Whole, Tile::Flat) => (&kernel::GATHER_GEMM_F16_FLAT, half),
            (Multiplier::F16, RowLayout::Ragged, _) => (&kernel::GATHER_GEMM_F16_RAGGED, half),
            (Multiplier::F16, RowLayout::Any, _) => (&kernel::GATHER_GEMM_F16_ANY, half),
            (Multiplier::F32, RowLayout::Whole, _) => (&kernel::GATHER_GEMM_F32, self.shape(TileSizes::FULL)),
            // Elements of 4 bytes are copied alone at little more cost.
            (Multiplier::F32, _, _) => (&kernel::GATHER_GEMM_F32_ANY, self.shape(TileSizes::FULL)),
            (Multiplier::Tf32, RowLayout::Whole, _) => (&kernel::GATHER_GEMM_TF32, self.shape(TileSizes::TF32)),
            (Multiplier::Tf32, _, _) => (&kernel::GATHER_GEMM_TF32_ANY, self.shape(TileSizes::TF32)),
        }
    }

    fn shape(&self, tile: TileSizes) -> Shape {
        let ProductSizes { in_features, out_features, batch, .. } = self.sizes;
        let tiles = in_features.div_ceil(tile.rows).max(1) * out_features.div_ceil(tile.columns).max(1);
        Shape {
            grid: [tiles, 1, batch.max(1) * self.splits],
            block: tile.threads,
            shared_bytes: tile.shared_bytes(),
            cooperative: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_h100(in_features: u32, out_features: u32, rows: u32) -> Tiling {
        tiling(Multiplier::Bf16, ProductSizes { in_features, out_features, rows, batch: 1 }, 132)
    }

    #[test]
    fn large_products_are_not_cut_and_small_ones_fill_the_gpu() {
        assert_eq!(on_h100(4096, 16384, 4915).splits, 1);
        assert!(on_h100(4096, 4096, 4915).splits <= 2);
        let small = on_h100(1024, 1024, 4915);
        assert!(small.splits > 1, "{small:?}");
        let (_, shape) = small.launch(RowLayout::Whole);
        assert!(shape.grid.iter().product::<u32>() >= 100, "{shape:?}");
        assert_eq!(small.partial_bytes, u64::from(small.splits) * 1024 * 1024 * 4);
        assert_eq!(on_h100(1024, 1024, 20).splits, 1);
    }

    #[test]
    fn slower_kernels_have_more_splits() {
        let splits = |multiplier, in_features, rows| {
            let sizes = ProductSizes { in_features, out_features: in_features, rows, batch: 1 };
            tiling(multiplier, sizes, 132).splits
        };
        // Nine tiles of 10 steps: too short for 16-bit elements to be cut, but not by fma.
        assert_eq!(splits(Multiplier::Bf16, 384, 307), 1);
        assert!((4..=10).contains(&splits(Multiplier::F32, 384, 307)));
        assert!((1..=splits(Multiplier::F32, 384, 307)).contains(&splits(Multiplier::Tf32, 384, 307)));
        // 64 tiles on 132 multiprocessors that take one block each; a third range would come in a second wave.
        assert_eq!(splits(Multiplier::F32, 1024, 4915), 2);
        assert_eq!(splits(Multiplier::F32, 4096, 4915), 1);
    }

    #[test]
    fn registers_leave_room_for_the_residents() {
        let manifest = include_str!("../../ptx/manifest.json");
        let manifest: serde_json::Value = serde_json::from_str(manifest).expect("JSON");
        for multiplier in [Multiplier::Bf16, Multiplier::F16, Multiplier::F32, Multiplier::Tf32] {
            for tile in tiles(multiplier) {
                let sizes = ProductSizes { in_features: 1, out_features: 1, rows: 1, batch: 1 };
                let (kernel, shape) = Tiling::new(multiplier, sizes, tile, 1).launch(RowLayout::Whole);
                let of_kernel = &manifest["files"]["wtacrs_sm80.ptx"]["kernels"][kernel.name()]["architectures"];
                for (name, built) in of_kernel.as_object().expect("architectures") {
                    let registers = built["registers"].as_u64().expect("a number").next_multiple_of(8);
                    let blocks = 65_536 / (registers * u64::from(shape.block));
                    assert!(blocks >= Cost::of(multiplier, tile).resident, "{} on {name}: {blocks}", kernel.name());
                }
            }
        }
    }

    #[test]
    fn narrow_matrices_have_narrow_tiles() {
        let heads = |in_features, out_features, rows| {
            tiling(Multiplier::Bf16, ProductSizes { in_features, out_features, rows, batch: 16 * 12 }, 132)
        };
        assert_eq!(heads(512, 64, 154).tile, Tile::Narrow);
        assert_eq!(heads(64, 512, 154).tile, Tile::Flat);
        assert_eq!(heads(512, 512, 154).tile, Tile::Wide);
        assert_eq!(on_h100(4096, 4096, 4915).tile, Tile::Wide);
        let single =
            tiling(Multiplier::Tf32, ProductSizes { in_features: 512, out_features: 64, rows: 154, batch: 192 }, 132);
        assert_eq!(single.tile, Tile::Square);
    }

    #[test]
    fn every_shape_fits_every_gpu() {
        for multiplier in [Multiplier::Bf16, Multiplier::F16, Multiplier::F32, Multiplier::Tf32] {
            for tile in Tile::ALL {
                for rows in [RowLayout::Whole, RowLayout::Ragged, RowLayout::Any] {
                    let sizes = ProductSizes { in_features: 0, out_features: 3000, rows: 0, batch: 2 };
                    let (_, shape) = Tiling::new(multiplier, sizes, tile, 3).launch(rows);
                    assert!(shape.shared_bytes <= 99 << 10, "{shape:?}");
                    assert_eq!(shape.grid[2], 6);
                }
            }
        }
    }
}
