//! Ridge regression (C + λI)·c = b by conjugate gradients, begun at the last step's solution.
//!
//! One step changes the statistics by a few per cent, so a few iterations of 2r² operations do where a Cholesky
//! factorisation takes r³/3. What they leave out are directions of small eigenvalue, which the ridge damps anyway.

use ndarray::aview1;
use wtacrs_exact::predictor::solver::{ITERATIONS, TOLERANCE};

/// Moves `solution` towards (matrix + ridge·I)⁻¹ · right. The matrix, row by row, is symmetric and not negative.
pub(super) fn improve(matrix: &[f64], ridge: f64, right: &[f64], solution: &mut [f64]) {
    let apply = |v: &[f64]| -> Vec<f64> {
        let v = aview1(v);
        matrix.chunks_exact(v.len()).zip(v).map(|(row, x)| aview1(row).dot(&v) + ridge * x).collect()
    };
    let mut residual: Vec<f64> = right.iter().zip(apply(solution)).map(|(b, a)| b - a).collect();
    let mut direction = residual.clone();
    let mut size = dot(&residual, &residual);
    let enough = TOLERANCE * dot(right, right);
    for _ in 0..ITERATIONS {
        if size <= enough {
            return;
        }
        let image = apply(&direction);
        let step = size / dot(&direction, &image);
        // Rounding alone can make the curvature zero, negative or too small: then there is nothing left to gain.
        if !(step > 0.0 && step.is_finite()) {
            return;
        }
        for (i, x) in solution.iter_mut().enumerate() {
            *x += step * direction[i];
            residual[i] -= step * image[i];
        }
        let next = dot(&residual, &residual);
        let momentum = next / size;
        direction.iter_mut().zip(&residual).for_each(|(d, r)| *d = r + momentum * *d);
        size = next;
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    aview1(a).dot(&aview1(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array1, Array2};

    #[test]
    fn repeated_calls_reach_the_solution() {
        let n = 40;
        let root = Array2::from_shape_fn((60, n), |(i, j)| ((i * 7 + j * j * 3) % 17) as f64 / 8.0 - 1.0);
        let matrix = root.t().dot(&root);
        let expected: Vec<f64> = (0..n).map(|i| (i % 7) as f64 - 3.0).collect();
        let right = matrix.dot(&Array1::from(expected.clone())) + 0.5 * Array1::from(expected.clone());
        let entries: Vec<f64> = matrix.iter().copied().collect();
        let mut found = vec![0.0; n];
        let distance = |found: &[f64]| found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let mut before = f64::INFINITY;
        for _ in 0..3 {
            improve(&entries, 0.5, &right.to_vec(), &mut found);
            assert!(distance(&found) < before);
            before = distance(&found);
        }
        for _ in 0..30 {
            improve(&entries, 0.5, &right.to_vec(), &mut found);
        }
        assert!(distance(&found) < 1e-6, "{}", distance(&found));
    }

    #[test]
    fn nothing_known_changes_nothing() {
        let mut found = vec![0.0; 3];
        improve(&[0.0; 9], 0.0, &[0.0; 3], &mut found);
        assert_eq!(found, [0.0; 3]);
        improve(&[0.0; 9], 0.0, &[1.0; 3], &mut found);
        assert_eq!(found, [0.0; 3]);
    }
}
