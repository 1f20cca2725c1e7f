//! Norms of rows and sums of columns from one read of a matrix, and the end of the sums.
//!
//! A block of the first launch takes a range of whole rows, a strip of up to 256 vectors of 16 bytes at a time. A thread
//! keeps its vector's columns in registers while it walks down the rows, four at a time. Its part of each row's squares goes
//! to the row's place in shared memory. Where rows are narrower than a block, groups of threads take rows in turn, and their
//! sums are added in the end. So x is read once, and besides it only a row of f32 for each range is written and read again.
//!
//! Where some rows are to be copied as well, the block first finds them among the indices, which ascend, and leaves their places
//! in shared memory. Threads then store the vectors of those rows as they have loaded them.

use super::block::repeat;
use super::block::vector::{self, Packed};
use super::row_norms::{add_squares, is_precise, join, rescue};
use crate::kernel::column_sums::{
    AT_ONCE, Args, FinishArgs, GatherArgs, Partition, WARPS, group_pitch, partial_leading,
};
use crate::kernel::matrix::{VECTOR_BYTES, is_aligned};
use crate::kernel::row_team::{RowTeam, THREADS};
use wtacrs_simt::WARP;
use wtacrs_simt::index::{block, lane, thread, warp};
use wtacrs_simt::math::sqrt_f32;
use wtacrs_simt::memory::{self, U32x4, load, load_constant, store};
use wtacrs_simt::shared::Shared;
use wtacrs_simt::sync::barrier;
use wtacrs_simt::warp::{FULL, ballot, shuffle_xor};

/// A block's rows.
#[derive(Clone, Copy)]
struct Range {
    partition: Partition,
    /// The first element.
    x: *const u8,
    /// Bytes from one row to the next.
    row_bytes: u64,
    rows: u32,
    columns: u32,
    /// [`partial_leading`] sums; null if they are not wanted.
    partials: *mut f32,
    /// Where the rows of the matrix that are to be copied go, and bytes from one of them to the next.
    out: *mut u8,
    out_row_bytes: u64,
}

/// The place of a row that is not copied.
const NOWHERE: u32 = u32::MAX;

/// Norms of rows, and sums of columns over each range of rows.
///
/// # Safety
///
/// The launch has the [`shape`](crate::kernel::column_sums::shape) of these arguments. Their pointers lead to as many
/// elements as their documentation says, `x` is aligned to its elements, and the outputs overlap nothing.
#[inline(always)]
pub unsafe fn row_norms_sums<E: Packed>(args: &Args) {
    // SAFETY: the caller's promise.
    unsafe { read_once::<E, false>(args, None) }
}

/// The same, and copies of some rows.
///
/// # Safety
///
/// As for [`row_norms_sums`], with [`gather_shape`](crate::kernel::column_sums::gather_shape); indices lie within the rows.
#[inline(always)]
pub unsafe fn row_norms_gather<E: Packed>(args: &GatherArgs) {
    // SAFETY: the caller's promise.
    unsafe { read_once::<E, true>(&args.of, Some(args)) }
}

/// # Safety
///
/// As for the two above; `gather` is there if `GATHERS`.
#[inline(always)]
unsafe fn read_once<E: Packed, const GATHERS: bool>(args: &Args, gather: Option<&GatherArgs>) {
    let partition = Partition::new(args.rows, args.columns.div_ceil(E::PER_VECTOR));
    let [at, _, matrix] = block();
    let first = at * partition.rows;
    let rows = args.rows.saturating_sub(first);
    let element = args.spacing.of(matrix) + u64::from(first) * args.leading;
    let of_partials = u64::from(matrix) * u64::from(partition.ranges(args.rows)) + u64::from(at);
    let mut range = Range {
        partition,
        x: args.x.wrapping_add((element * u64::from(E::BYTES)) as usize),
        row_bytes: args.leading * u64::from(E::BYTES),
        rows: if rows < partition.rows { rows } else { partition.rows },
        columns: args.columns,
        partials: args.partials.wrapping_add((of_partials * partial_leading(args.columns)) as usize),
        out: core::ptr::null_mut(),
        out_row_bytes: 0,
    };
    if GATHERS {
        if args.partials.is_null() {
            range.partials = args.partials;
        }
        if let Some(gather) = gather {
            // SAFETY: the caller's promise.
            unsafe { range.place::<E>(gather, first, at, matrix) };
        }
    }
    let aligned = is_aligned(args.x, (args.leading | args.spacing.bits()) * u64::from(E::BYTES));
    // SAFETY: the range lies within the matrix, its sums are this block's, and the barrier is between the writes to
    // shared memory and its reads.
    unsafe {
        range.add::<E, GATHERS>(aligned);
        barrier();
        if partition.team.rows() > 1 && range.has_sums::<GATHERS>() {
            range.join_groups::<E>();
        }
        if !args.norms.is_null() {
            let norms = args.norms.wrapping_add(matrix as usize * args.rows as usize + first as usize);
            range.write_norms::<E>(norms);
        }
    }
}

impl Range {
    /// The squares of each row, one sum for each warp that shares the row.
    #[inline(always)]
    fn squares(&self) -> Shared<f32> {
        Shared::new(0, self.partition.warps() * self.partition.rows)
    }

    /// The sums of groups: element e of thread t's vector at e · pitch + t. So no two lanes meet in a bank, neither those of one
    /// element nor, in `join_groups`, those of neighbouring columns.
    #[inline(always)]
    fn groups<E: Packed>(&self) -> Shared<f32> {
        Shared::new(self.squares().end(), group_pitch(E::PER_VECTOR) * E::PER_VECTOR)
    }

    /// The place in `out` of each row.
    #[inline(always)]
    fn places<E: Packed>(&self) -> Shared<u32> {
        let groups = if self.partition.team.rows() > 1 { self.groups::<E>().end() } else { self.squares().end() };
        Shared::new(groups, self.partition.rows)
    }

    #[inline(always)]
    fn has_sums<const GATHERS: bool>(&self) -> bool {
        !GATHERS || !self.partials.is_null()
    }

    /// Finds the places of the range's rows among the indices, and clears a share of the rows of `out` that none goes to. `first`
    /// is the first row, and the range number `at` of the matrix.
    #[inline(always)]
    unsafe fn place<E: Packed>(&mut self, args: &GatherArgs, first: u32, at: u32, matrix: u32) {
        let kept = args.kept;
        let of_matrix = matrix as usize * kept as usize;
        let indices = args.indices.wrapping_add(of_matrix);
        // SAFETY: a count for each matrix.
        let count = if args.count.is_null() { kept } else { unsafe { load_constant(args.count.add(matrix as usize)) } };
        let count = if count < kept { count } else { kept };
        self.out_row_bytes = args.out_leading * u64::from(E::BYTES);
        self.out = args.out.wrapping_add(of_matrix.wrapping_mul(self.out_row_bytes as usize));

        let places = self.places::<E>();
        // SAFETY: a place for each row, of this thread's own, then behind a barrier that of the row whose index this thread has;
        // indices ascend, so each row has one at most. Others read places behind the next barrier.
        unsafe {
            if thread() < self.partition.rows {
                places.write(thread(), NOWHERE);
            }
            let next = first_not_below(indices, count, first) + thread();
            barrier();
            if next < count {
                let row = load_constant(indices.add(next as usize)) - first;
                if row < self.rows {
                    places.write(row, next);
                }
            }
            barrier();
        }
        let ranges = self.partition.ranges(args.of.rows);
        let mut row = count + at;
        while row < kept {
            let mut vector = thread();
            while vector * E::PER_VECTOR < self.columns {
                // SAFETY: a vector of a row of `out`, padded to whole ones; no other range clears it, and none copies to it.
                unsafe { store(self.vector_of_out(row, vector), U32x4([0; 4])) };
                vector += THREADS;
            }
            row += ranges;
        }
    }

    #[inline(always)]
    fn vector_of_out(&self, row: u32, vector: u32) -> *mut U32x4 {
        let at = u64::from(row) * self.out_row_bytes + u64::from(vector) * u64::from(VECTOR_BYTES);
        self.out.wrapping_add(at as usize).cast()
    }

    /// Reads every element.
    #[inline(always)]
    unsafe fn add<E: Packed, const GATHERS: bool>(&self, aligned: bool) {
        let team = self.partition.team;
        let groups = team.rows();
        let lanes = if team.threads() < WARP { team.threads() } else { WARP };
        let mut strip = 0;
        loop {
            let vector = strip + team.member();
            let elements = self.columns.saturating_sub(vector * E::PER_VECTOR);
            let elements = if elements < E::PER_VECTOR { elements } else { E::PER_VECTOR };
            let is_whole = aligned && elements == E::PER_VECTOR;
            let mut sums = [0.0_f32; 8];
            let mut row = team.row();
            // All threads take equally many turns, so that the lanes of a warp meet at its shuffles.
            let mut base = 0;
            while base < self.rows {
                let at = |k: u32| {
                    let at = u64::from(row + k * groups) * self.row_bytes + u64::from(vector) * u64::from(VECTOR_BYTES);
                    self.x.wrapping_add(at as usize)
                };
                // Rows beyond the range are zeros: adding them changes no sum.
                let whole = |k: u32| {
                    if row + k * groups < self.rows {
                        // SAFETY: a whole vector of a row of the range, aligned.
                        unsafe { vector::load::<E, true>(at(k)) }
                    } else {
                        U32x4([0; 4])
                    }
                };
                let part = |k: u32| {
                    let elements = if row + k * groups < self.rows { elements } else { 0 };
                    // SAFETY: as many elements of a row of the range, if it is one.
                    unsafe { vector::load_part::<E>(at(k), elements) }
                };
                // One branch for all four, so that their loads are on their way together.
                let (a, b, c, d) = if is_whole {
                    (whole(0), whole(1), whole(2), whole(3))
                } else {
                    (part(0), part(1), part(2), part(3))
                };
                if GATHERS && elements > 0 {
                    let copy = |k: u32, loaded: U32x4| {
                        let row = row + k * groups;
                        if row < self.rows {
                            // SAFETY: a row of the range has a place, or none; the vector lies within the padded row there.
                            unsafe {
                                let place = self.places::<E>().read(row);
                                if place != NOWHERE {
                                    store(self.vector_of_out(place, vector), loaded);
                                }
                            }
                        }
                    };
                    copy(0, a);
                    copy(1, b);
                    copy(2, c);
                    copy(3, d);
                }
                let mut add = |vector: U32x4| {
                    add_elements::<E>(&mut sums, vector);
                    let mut squares = [0.0_f32; 4];
                    add_squares::<E>(&mut squares, vector);
                    join(squares)
                };
                let squares = over_lanes([add(a), add(b), add(c), add(d)], lanes);
                if team.member().is_multiple_of(WARP) {
                    repeat!(K in 0 1 2 3 => {
                        let row = row + K * groups;
                        if row < self.rows {
                            let at = team.member() / WARP * self.partition.rows + row;
                            // SAFETY: the place of this warp and row, which this thread alone uses before the barrier.
                            unsafe {
                                let before = if strip == 0 { 0.0 } else { self.squares().read(at) };
                                self.squares().write(at, before + squares[K as usize]);
                            }
                        }
                    });
                }
                row += AT_ONCE * groups;
                base += AT_ONCE * groups;
            }
            // SAFETY: this thread's sums; those of a partial vector lie within the leading dimension.
            unsafe {
                if groups > 1 {
                    self.leave::<E>(sums);
                } else if elements > 0 && self.has_sums::<GATHERS>() {
                    store_sums::<E>(self.partials.wrapping_add((vector * E::PER_VECTOR) as usize), sums);
                }
            }
            strip += team.threads();
            if strip * E::PER_VECTOR >= self.columns {
                break;
            }
        }
    }

    /// Leaves a thread's sums for [`Self::join_groups`].
    #[inline(always)]
    unsafe fn leave<E: Packed>(&self, sums: [f32; 8]) {
        repeat!(I in 0 1 2 3 4 5 6 7 => {
            if I < E::PER_VECTOR {
                // SAFETY: the thread's own place.
                unsafe { self.groups::<E>().write(I * group_pitch(E::PER_VECTOR) + thread(), sums[(I * (8 / E::PER_VECTOR)) as usize]) };
            }
        });
    }

    /// Adds the groups' sums in their order, a column in each thread.
    #[inline(always)]
    unsafe fn join_groups<E: Packed>(&self) {
        let team = self.partition.team;
        let mut column = thread();
        while column < self.columns {
            let (vector, element) = (column / E::PER_VECTOR, column % E::PER_VECTOR);
            let mut sum = 0.0_f32;
            let mut group = vector;
            while group < THREADS {
                // SAFETY: a group's place, written before the barrier.
                sum += unsafe { self.groups::<E>().read(element * group_pitch(E::PER_VECTOR) + group) };
                group += team.threads();
            }
            // SAFETY: a column of this block's sums, and this thread's alone.
            unsafe { memory::store(self.partials.wrapping_add(column as usize), sum) };
            column += THREADS;
        }
    }

    /// A lane computes the norm of a row from the warps' squares. The warp sums the squares of imprecise rows again.
    #[inline(always)]
    unsafe fn write_norms<E: Packed>(&self, norms: *mut f32) {
        let mut first = warp() * WARP;
        while first < self.rows {
            let row = first + lane();
            let is_row = row < self.rows;
            let mut squares = 0.0_f32;
            let mut at = row;
            while is_row && at < self.partition.warps() * self.partition.rows {
                // SAFETY: a row of the range, whose squares were written before the barrier.
                squares += unsafe { self.squares().read(at) };
                at += self.partition.rows;
            }
            let mut norm = sqrt_f32(squares);
            let mut pending = ballot(FULL, is_row && self.columns > 0 && !is_precise(squares));
            while pending != 0 {
                let next = pending.trailing_zeros();
                let x = self.x.wrapping_add((u64::from(first + next) * self.row_bytes) as usize);
                // SAFETY: a row of the range; a warp's sum needs no scratch.
                let again = unsafe { rescue::<E>(RowTeam::of_lanes(WARP), x, core::ptr::null(), self.columns) };
                if lane() == next {
                    norm = again.norm;
                }
                pending &= pending - 1;
            }
            if is_row {
                // SAFETY: the row's own place.
                unsafe { memory::store(norms.wrapping_add(row as usize), norm) };
            }
            first += THREADS;
        }
    }
}

/// How many of the first `count` indices, which ascend, are below a row. The warp's lanes search together: 32 parts in each turn.
///
/// # Safety
///
/// There are as many indices; all lanes of the warp call it together with equal arguments.
#[inline(always)]
unsafe fn first_not_below(indices: *const u32, count: u32, row: u32) -> u32 {
    // The answer is at `low` at least, and at most `len` further.
    let (mut low, mut len) = (0, count);
    while len > 0 {
        let step = len.div_ceil(WARP);
        let end = (lane() + 1) * step;
        // SAFETY: below the count.
        let is_below = end <= len && unsafe { load_constant(indices.add((low + end - 1) as usize)) } < row;
        let parts = ballot(FULL, is_below).count_ones();
        low += parts * step;
        let rest = len - parts * step;
        len = if rest < step - 1 { rest } else { step - 1 };
    }
    low
}

/// Adds each element to the sum of its word and half.
#[inline(always)]
fn add_elements<E: Packed>(sums: &mut [f32; 8], U32x4([a, b, c, d]): U32x4) {
    let [s0, s1, s2, s3, s4, s5, s6, s7] = sums;
    let add = |low: &mut f32, high: &mut f32, word: u32| {
        E::for_each(word, |half, value| if half == 0 { *low += value } else { *high += value });
    };
    add(s0, s1, a);
    add(s2, s3, b);
    add(s4, s5, c);
    add(s6, s7, d);
}

/// The sums over groups of so many lanes, a power of two, in all of them.
#[inline(always)]
fn over_lanes(mut sums: [f32; 4], lanes: u32) -> [f32; 4] {
    let mut flip = lanes / 2;
    while flip > 0 {
        repeat!(I in 0 1 2 3 => { sums[I as usize] += shuffle_xor(FULL, sums[I as usize], flip); });
        flip /= 2;
    }
    sums
}

/// Writes the sums of a vector's elements.
#[inline(always)]
unsafe fn store_sums<E: Packed>(to: *mut f32, [s0, s1, s2, s3, s4, s5, s6, s7]: [f32; 8]) {
    let four = |sums: [f32; 4]| U32x4(sums.map(f32::to_bits));
    // SAFETY: the caller's promise: a vector's elements, aligned to 16.
    unsafe {
        if E::PER_VECTOR == 4 {
            memory::store(to.cast(), four([s0, s2, s4, s6]));
        } else {
            memory::store(to.cast(), four([s0, s1, s2, s3]));
            memory::store(to.wrapping_add(4).cast(), four([s4, s5, s6, s7]));
        }
    }
}

/// The sums of the columns of a block of 256 threads: 32 of them, a lane each; warps take ranges in turn, and the warps'
/// sums are added in their order.
///
/// # Safety
///
/// Memory as [`FinishArgs`] says, in a launch with `SHARED_BYTES` of shared memory that nothing else uses; all threads of
/// the block call it together.
#[inline(always)]
pub(super) unsafe fn finish(args: &FinishArgs, block: u32, matrix: u32) {
    let column = block * WARP + lane();
    let is_column = column < args.columns;
    let leading = partial_leading(args.columns);
    let first = u64::from(matrix) * u64::from(args.ranges) * leading + u64::from(column);
    let partials = args.partials.wrapping_add(first as usize);
    let partial = |range: u32| {
        // SAFETY: called for ranges that there are, in threads that have a column.
        unsafe { load_constant(partials.wrapping_add((u64::from(range) * leading) as usize)) }
    };
    let mut sum = 0.0_f32;
    let mut range = warp();
    // Four at a time, so that four loads are on their way; the order of additions is the same.
    while is_column && range + 3 * WARPS < args.ranges {
        let (a, b, c, d) =
            (partial(range), partial(range + WARPS), partial(range + 2 * WARPS), partial(range + 3 * WARPS));
        sum = sum + a + b + c + d;
        range += 4 * WARPS;
    }
    while is_column && range < args.ranges {
        sum += partial(range);
        range += WARPS;
    }
    let of_warps = Shared::<f32>::new(0, WARPS * WARP);
    // SAFETY: an entry of the thread's own, read by others after the barrier.
    unsafe { of_warps.write(thread(), sum) };
    barrier();
    if is_column && warp() == 0 {
        let mut total = 0.0_f32;
        let mut entry = lane();
        while entry < WARPS * WARP {
            // SAFETY: written before the barrier.
            total += unsafe { of_warps.read(entry) };
            entry += WARP;
        }
        let to = args.sums.wrapping_add(matrix as usize * args.columns as usize + column as usize);
        // SAFETY: the column's own place, this thread's alone; old sums are read only if they count.
        unsafe { store(to, if args.accumulate != 0 { load(to) + total } else { total }) };
    }
}
