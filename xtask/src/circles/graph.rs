//! Which files take what from which, and the circles among them.

use std::collections::{BTreeMap, VecDeque};

/// What one file takes from another: names, each with the first line that has it.
pub(super) type Names = BTreeMap<String, usize>;

/// For each file, the files that it takes something from.
#[derive(Default)]
pub(super) struct Graph {
    edges: BTreeMap<usize, BTreeMap<usize, Names>>,
}

/// A file of a circle, and what it takes from the next.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) file: usize,
    pub(super) takes: Names,
}

impl Graph {
    pub(super) fn add(&mut self, from: usize, to: usize, name: &str, line: usize) {
        let names = self.edges.entry(from).or_default().entry(to).or_default();
        let first = names.entry(name.to_owned()).or_insert(line);
        *first = line.min(*first);
    }

    /// How many pairs of files have an edge.
    pub(super) fn len(&self) -> usize {
        self.edges.values().map(BTreeMap::len).sum()
    }

    /// Circles, the shortest first, until cutting the thinnest link of each has left none.
    pub(super) fn circles(mut self) -> Vec<Vec<Link>> {
        let mut circles = Vec::new();
        while let Some(files) = self.shortest_circle() {
            let next = |at: usize| files[(at + 1) % files.len()];
            let link = |at: usize| Link { file: files[at], takes: self.edges[&files[at]][&next(at)].clone() };
            let circle: Vec<Link> = (0..files.len()).map(link).collect();
            let thinnest = (0..files.len()).min_by_key(|&at| circle[at].takes.len()).unwrap_or(0);
            if let Some(edges) = self.edges.get_mut(&files[thinnest]) {
                edges.remove(&next(thinnest));
            }
            circles.push(circle);
        }
        circles
    }

    fn shortest_circle(&self) -> Option<Vec<usize>> {
        self.edges.keys().filter_map(|&file| self.way_back(file)).min_by_key(Vec::len)
    }

    /// The shortest way from a file to itself: the files on it.
    fn way_back(&self, start: usize) -> Option<Vec<usize>> {
        let mut came_from = BTreeMap::new();
        let mut queue = VecDeque::from([start]);
        while let Some(file) = queue.pop_front() {
            for &next in self.edges.get(&file).into_iter().flat_map(BTreeMap::keys) {
                if next == start {
                    let mut way = vec![file];
                    while let Some(&before) = way.last().and_then(|last| came_from.get(last)) {
                        way.push(before);
                    }
                    way.reverse();
                    return Some(way);
                }
                came_from.entry(next).or_insert_with(|| {
                    queue.push_back(next);
                    file
                });
            }
        }
        None
    }
}
