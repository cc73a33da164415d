//! A mixture of experts as its metadata describes it.

use super::{MAX_WIDTH, arch::ExpertsRow, keys::Keys};
use crate::Error;

/// Above any model known (DeepSeek-V3 has 256), so that a lying file is refused by name.
const MAX_EXPERTS: usize = 1024;

/// Many feed-forward bodies of which each row goes through a few.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Experts {
    pub count: usize,
    /// How many a row goes through.
    pub used: usize,
    pub width: usize,
    /// Of the body that every row goes through beside them, if the file has one.
    pub shared_width: usize,
    pub is_normalised: bool,
}

impl Experts {
    /// `dense_width` is `feed_forward_length`, for files that name no width of their own for experts.
    pub fn read(
        keys: Keys<'_>,
        row: Option<ExpertsRow>,
        dense_width: Option<usize>,
    ) -> Result<Option<Experts>, Error> {
        let found = keys.number("expert_count")?.filter(|&count| count > 0);
        let row = match (found, row) {
            (None, None | Some(ExpertsRow { is_optional: true, .. })) => return Ok(None),
            (Some(count), None) => {
                let problem = format!("mixtures of experts are not known in this architecture, got {count}");
                return Err(keys.wrong("expert_count", &problem));
            }
            (_, Some(row)) => row,
        };
        let count = keys.count("expert_count", MAX_EXPERTS)?;
        let used = keys.count("expert_used_count", count)?;
        refuse_other_routers(keys)?;
        let width = |key| keys.optional_count(key, MAX_WIDTH).map(|width| width.or(dense_width));
        let needed =
            |width: Option<usize>| width.ok_or_else(|| keys.wrong("feed_forward_length", "is missing"));
        Ok(Some(Experts {
            count,
            used,
            width: needed(width("expert_feed_forward_length")?)?,
            shared_width: needed(width("expert_shared_feed_forward_length")?)?,
            is_normalised: row.is_normalised,
        }))
    }
}

/// Other families choose among groups of experts or by other functions; these keys would say so.
fn refuse_other_routers(keys: Keys<'_>) -> Result<(), Error> {
    const ONLY: [(&str, &str); 2] =
        [("expert_group_count", "groups of experts"), ("expert_gating_func", "routers other than softmax")];
    for (key, what) in ONLY {
        if let Some(value) = keys.number(key)?.filter(|&value| value > 1) {
            return Err(keys.wrong(key, &format!("{what} are not supported, got {value}")));
        }
    }
    Ok(())
}
