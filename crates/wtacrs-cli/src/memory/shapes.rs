//! Transformers whose shapes the command knows by name, and the inputs that their linear layers read.
//!
//! Sources: Devlin et al., "BERT", NAACL 2019; Raffel et al., "Exploring the limits of transfer learning with a unified
//! text-to-text transformer", JMLR 21 (2020).

use std::str::FromStr;

/// A transformer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Model {
    /// Its name.
    pub name: &'static str,
    /// Width of the residual stream.
    pub width: usize,
    /// Width of the feed-forward layers.
    pub feed_forward: usize,
    /// Heads times channels of a head.
    pub attention: usize,
    /// Encoder blocks.
    pub encoders: usize,
    /// Decoder blocks.
    pub decoders: usize,
}

/// All of them.
pub const MODELS: [Model; 7] = [
    model("bert-base", 768, 3072, 768, 12, 0),
    model("bert-large", 1024, 4096, 1024, 24, 0),
    model("t5-small", 512, 2048, 512, 6, 6),
    model("t5-base", 768, 3072, 768, 12, 12),
    model("t5-large", 1024, 4096, 1024, 24, 24),
    model("t5-3b", 1024, 16384, 4096, 24, 24),
    model("t5-11b", 1024, 65536, 16384, 24, 24),
];

/// A matrix that linear layers read, and that training saves once for all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Input {
    /// Its block and its readers.
    pub name: &'static str,
    /// How many linear layers read it.
    pub layers: usize,
    /// How many such matrices the model has.
    pub count: usize,
    /// Whose tokens its rows are.
    pub rows: Rows,
    /// Its columns.
    pub features: usize,
}

/// Whose tokens the rows of an input are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// The sequence's.
    Source,
    /// The target's.
    Target,
}

/// The sequences that pass through a model in one step.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    /// Sequences.
    pub sequences: usize,
    /// Tokens of each, padding included.
    pub length: usize,
    /// Tokens of each target, for a decoder.
    pub target_length: usize,
}

/// A name that is not a model's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no shape '{name}': choose from {}", names())]
pub struct UnknownModel {
    /// The offending name.
    pub name: String,
}

/// The names of all shapes, separated by commas.
pub fn names() -> String {
    MODELS.map(|model| model.name).join(", ")
}

const fn model(
    name: &'static str,
    width: usize,
    feed_forward: usize,
    attention: usize,
    encoders: usize,
    decoders: usize,
) -> Model {
    Model { name, width, feed_forward, attention, encoders, decoders }
}

impl Model {
    /// The inputs of its linear layers, in the order in which data passes through them.
    pub fn inputs(&self) -> Vec<Input> {
        let &Self { width, feed_forward, attention, encoders, decoders, .. } = self;
        let block = |rows, count, names: [&'static str; 4]| {
            let input = |name, layers, features| Input { name, layers, count, rows, features };
            let [read, output, up, down] = names;
            [input(read, 3, width), input(output, 1, attention), input(up, 1, width), input(down, 1, feed_forward)]
        };
        let encoder = ["encoder: query, key, value", "encoder: attention output", "encoder: up", "encoder: down"];
        let mut inputs = block(Rows::Source, encoders, encoder).to_vec();
        if decoders > 0 {
            let decoder = ["decoder: query, key, value", "decoder: attention output", "decoder: up", "decoder: down"];
            inputs.extend(block(Rows::Target, decoders, decoder));
            let cross = |name, features| Input { name, layers: 1, count: decoders, rows: Rows::Target, features };
            inputs.push(cross("cross attention: query", width));
            inputs.push(cross("cross attention: output", attention));
            // One matrix, the encoder's output, which every decoder block reads twice.
            let name = "cross attention: keys, values";
            inputs.push(Input { name, layers: 2 * decoders, count: 1, rows: Rows::Source, features: width });
        }
        inputs
    }
}

impl FromStr for Model {
    type Err = UnknownModel;

    fn from_str(name: &str) -> Result<Self, UnknownModel> {
        MODELS.into_iter().find(|model| model.name == name).ok_or_else(|| UnknownModel { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_linear_layer_is_counted() {
        let layers = |name: &str| -> usize {
            let model: Model = name.parse().expect("known");
            model.inputs().iter().map(|input| input.layers * input.count).sum()
        };
        // Six in a block; four more in a decoder's.
        assert_eq!(layers("bert-base"), 12 * 6);
        assert_eq!(layers("t5-3b"), 24 * 6 + 24 * 10);
    }

    #[test]
    fn a_wrong_name_is_answered_with_the_right_ones() {
        let error = "gpt-5".parse::<Model>().expect_err("unknown").to_string();
        assert!(error.contains("'gpt-5'") && error.contains("bert-base") && error.contains("t5-11b"), "{error}");
    }
}
