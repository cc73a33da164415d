//! Models in several files: `name-00001-of-00003.gguf`, each with `split.*` keys in its metadata.

/// What a file name says about its place among the parts of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard<'a> {
    /// What all parts have in common.
    pub base: &'a str,
    /// From 1.
    pub number: u32,
    pub count: u32,
}

impl<'a> Shard<'a> {
    /// `None` for the name of a whole model.
    pub fn of(file_name: &'a str) -> Option<Shard<'a>> {
        let stem = file_name.strip_suffix(".gguf")?;
        let (rest, count) = stem.rsplit_once("-of-")?;
        let (base, number) = rest.rsplit_once('-')?;
        let digits = |text: &str| {
            let is_number = text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| text.parse().ok()).flatten()
        };
        let shard = Shard { base, number: digits(number)?, count: digits(count)? };
        (!base.is_empty() && (1..=shard.count).contains(&shard.number)).then_some(shard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_full_name_is_one_of_a_part() {
        let shard = Shard::of("big-7b-00002-of-00003.gguf").unwrap();
        assert_eq!(shard, Shard { base: "big-7b", number: 2, count: 3 });
        let whole = [
            "big.gguf",
            "big-00002-of-00003",
            "big-0002-of-0003.gguf",
            "big-00004-of-00003.gguf",
            "big-00000-of-00003.gguf",
            "-00001-of-00001.gguf",
            "big-0000a-of-00003.gguf",
        ];
        assert!(whole.iter().all(|name| Shard::of(name).is_none()));
    }
}
