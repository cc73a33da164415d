//! Pages by themselves: who holds what, what is shared, and what goes first.

use proptest::prelude::*;

use super::*;

/// So many tokens that begin with `from`.
fn tokens(from: u32, len: usize) -> Vec<u32> {
    (from..).take(len).collect()
}

/// A table that holds `tokens`, published.
fn filled(pages: &mut Pages, tokens: &[u32]) -> Table {
    let mut table = Table::default();
    pages.reuse(&mut table, tokens);
    assert!(pages.grow(&mut table, tokens.len()));
    pages.publish(&mut table, tokens);
    table
}

#[test]
fn a_table_grows_by_whole_pages_and_gives_them_back() {
    let mut pages = Pages::new(6);
    let mut table = Table::default();
    assert!(pages.grow(&mut table, 1));
    assert!(pages.grow(&mut table, PAGE_TOKENS));
    assert_eq!((table.ids(), pages.available()), (&[0][..], 5));
    assert!(pages.grow(&mut table, PAGE_TOKENS + 1));
    assert_eq!(table.ids(), &[0, 1]);
    assert_eq!(pages.cut(&mut table, PAGE_TOKENS), PAGE_TOKENS);
    assert_eq!((table.ids(), pages.available()), (&[0][..], 5));
    pages.release(table);
    assert_eq!(pages.available(), 6);
}

#[test]
fn a_table_that_cannot_grow_stays_as_it_is() {
    let mut pages = Pages::new(2);
    let mut table = Table::default();
    assert!(pages.grow(&mut table, PAGE_TOKENS));
    assert!(!pages.grow(&mut table, 3 * PAGE_TOKENS));
    assert_eq!((table.ids().len(), pages.available()), (1, 1));
}

#[test]
fn a_freed_page_is_the_next_to_go_out() {
    let mut pages = Pages::new(4);
    let (mut first, mut second) = (Table::default(), Table::default());
    assert!(pages.grow(&mut first, 1) && pages.grow(&mut second, 1));
    pages.release(first);
    let mut third = Table::default();
    assert!(pages.grow(&mut third, 1));
    assert_eq!(third.ids(), &[0]);
}

#[test]
fn what_begins_alike_shares_its_full_pages_but_never_the_last_token() {
    let mut pages = Pages::new(8);
    let told = tokens(0, 2 * PAGE_TOKENS + 5);
    let first = filled(&mut pages, &told);
    for (asked, shared) in [
        (told.clone(), 2),
        (tokens(0, 2 * PAGE_TOKENS), 1),
        (tokens(0, 2 * PAGE_TOKENS + 1), 2),
        ([tokens(0, PAGE_TOKENS), tokens(900, 60)].concat(), 1),
        (tokens(1, 90), 0),
        (vec![], 0),
    ] {
        let mut table = Table::default();
        pages.reuse(&mut table, &asked);
        assert_eq!(table.ids(), &first.ids()[..shared], "{} tokens", asked.len());
        pages.release(table);
    }
}

#[test]
fn the_same_tokens_at_another_place_are_another_page() {
    let mut pages = Pages::new(8);
    let run = tokens(7, PAGE_TOKENS);
    let table = filled(&mut pages, &[run.clone(), run.clone(), run.clone()].concat());
    assert_eq!(table.ids(), &[0, 1, 2]);
}

#[test]
fn two_that_computed_the_same_keep_one_of_both() {
    let mut pages = Pages::new(8);
    let told = tokens(0, 70);
    let (mut first, mut second) = (Table::default(), Table::default());
    assert!(pages.grow(&mut first, 70) && pages.grow(&mut second, 70));
    pages.publish(&mut first, &told);
    pages.publish(&mut second, &told);
    assert_eq!(first.ids()[..2], second.ids()[..2]);
    assert_eq!(pages.available(), 8 - 4, "two shared, and one half page each");
}

#[test]
fn a_prefix_outlives_its_sequence_until_its_pages_are_needed() {
    let mut pages = Pages::new(4);
    let (old, new) = (tokens(0, 64), tokens(500, 64));
    for told in [&old, &new] {
        let table = filled(&mut pages, told);
        pages.release(table);
    }
    assert_eq!((pages.available(), pages.free.len()), (4, 0));
    let mut table = Table::default();
    assert!(pages.grow(&mut table, 1), "an idle page is as good as a free one");
    for (told, kept) in [(&old, 1), (&new, 2)] {
        let mut table = Table::default();
        pages.reuse(&mut table, &[told, &[1][..]].concat());
        assert_eq!(table.ids().len(), kept, "the end of the oldest goes first");
        pages.release(table);
    }
}

#[test]
fn a_cut_never_leaves_a_published_page_to_write_into() {
    let mut pages = Pages::new(8);
    let told = tokens(0, 3 * PAGE_TOKENS + 9);
    let mut table = filled(&mut pages, &told);
    assert_eq!(
        pages.cut(&mut table, 3 * PAGE_TOKENS + 2),
        3 * PAGE_TOKENS + 2,
        "an open page may be cut anywhere"
    );
    assert_eq!(pages.cut(&mut table, PAGE_TOKENS + 2), PAGE_TOKENS);
    assert_eq!(table.ids(), &[0]);
    let other = [tokens(0, PAGE_TOKENS), tokens(700, PAGE_TOKENS)].concat();
    assert!(pages.grow(&mut table, 2 * PAGE_TOKENS));
    pages.publish(&mut table, &other);
    let again = filled(&mut pages, &other);
    assert_eq!(again.ids()[..2], *table.ids(), "the chain goes on from where it was cut");
}

#[derive(Clone, Debug)]
enum Act {
    /// Tokens of so many kinds of run.
    Begin(Vec<u8>),
    Cut(usize, usize),
    End(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        prop::collection::vec(0u8..3, 0..6).prop_map(Act::Begin),
        (0usize..4, 0usize..200).prop_map(|(at, positions)| Act::Cut(at, positions)),
        (0usize..4).prop_map(Act::End),
    ]
}

proptest! {
    #[test]
    fn every_page_is_accounted_for_and_every_prefix_can_be_reached(acts in prop::collection::vec(act(), 1..60)) {
        let mut pages = Pages::new(12);
        let mut tables: Vec<Table> = Vec::new();
        for act in acts {
            match act {
                Act::Begin(runs) => {
                    let tokens: Vec<u32> = runs.iter().flat_map(|&run| vec![u32::from(run); PAGE_TOKENS]).collect();
                    let mut table = Table::default();
                    pages.reuse(&mut table, &tokens);
                    match pages.grow(&mut table, tokens.len() + 3) {
                        true => {
                            pages.publish(&mut table, &tokens);
                            tables.push(table);
                        }
                        false => pages.release(table),
                    }
                }
                Act::Cut(at, positions) if at < tables.len() => {
                    let left = pages.cut(&mut tables[at], positions);
                    prop_assert!(left <= positions && positions - left < PAGE_TOKENS);
                }
                Act::End(at) if at < tables.len() => pages.release(tables.swap_remove(at)),
                Act::Cut(..) | Act::End(_) => {}
            }
            for page in 0..12u32 {
                let held = tables.iter().flat_map(Table::ids).filter(|id| **id == page).count();
                prop_assert_eq!(held, pages.holders[page as usize] as usize);
            }
            let held = (0..12).filter(|&page| pages.holders[page] > 0).count();
            prop_assert_eq!(held + pages.available(), 12);
            prop_assert!(pages.prefixes.is_whole());
        }
    }
}
