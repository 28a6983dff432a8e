//! What is counted in a text. A word is a run of letters and digits, in lower case; an apostrophe within it belongs to it.

use std::collections::HashMap;

use serde::Serialize;

/// How many of the most frequent words are listed.
const TOP: usize = 10;

/// Statistics of one text.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Size of the text.
    pub bytes: u64,
    /// Lines; a last one without a line break counts.
    pub lines: u64,
    /// Words.
    pub words: u64,
    /// Different words.
    pub distinct_words: u64,
    /// The longest word, in characters; the first of several. None when there is no word.
    pub longest_word: Option<String>,
    /// The most frequent words, most frequent first, then by alphabet.
    pub top_words: Vec<TopWord>,
}

/// A word and how often it is there.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct TopWord {
    /// The word.
    pub word: String,
    /// Its count.
    pub count: u64,
}

impl Stats {
    /// Counts.
    pub fn of(text: &str) -> Self {
        let lower = text.to_lowercase();
        let mut counts: HashMap<&str, u64> = HashMap::new();
        let (mut words, mut longest, mut longest_chars) = (0, None, 0);
        for word in words_of(&lower) {
            words += 1;
            *counts.entry(word).or_default() += 1;
            let chars = word.chars().count();
            if chars > longest_chars {
                (longest, longest_chars) = (Some(word.to_owned()), chars);
            }
        }
        let distinct_words = counts.len() as u64;
        let mut ranked: Vec<(&str, u64)> = counts.into_iter().collect();
        ranked.sort_unstable_by(|(a, a_count), (b, b_count)| b_count.cmp(a_count).then_with(|| a.cmp(b)));
        let top_words = ranked.into_iter().take(TOP).map(|(word, count)| TopWord { word: word.to_owned(), count });
        Self {
            bytes: text.len() as u64,
            lines: text.lines().count() as u64,
            words,
            distinct_words,
            longest_word: longest,
            top_words: top_words.collect(),
        }
    }
}

fn words_of(text: &str) -> impl Iterator<Item = &str> {
    const APOSTROPHES: [char; 2] = ['\'', '\u{2019}'];
    text.split(|c: char| !c.is_alphanumeric() && !APOSTROPHES.contains(&c))
        .map(|run| run.trim_matches(APOSTROPHES))
        .filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_counted_without_regard_to_case_and_punctuation() {
        let stats = Stats::of("The cat's out.\n'Tis the CAT'S\nday -- the end");
        assert_eq!((stats.bytes, stats.lines, stats.words, stats.distinct_words), (44, 3, 9, 6));
        let top: Vec<(&str, u64)> = stats.top_words.iter().map(|top| (top.word.as_str(), top.count)).collect();
        assert_eq!(top, [("the", 3), ("cat's", 2), ("day", 1), ("end", 1), ("out", 1), ("tis", 1)]);
        assert_eq!(stats.longest_word.as_deref(), Some("cat's"));
    }

    #[test]
    fn longest_word_is_measured_in_characters_and_the_first_wins() {
        assert_eq!(Stats::of("häßlich schoener größere").longest_word.as_deref(), Some("schoener"));
        assert_eq!(Stats::of("abc xyz").longest_word.as_deref(), Some("abc"));
    }

    #[test]
    fn no_more_than_ten_words_are_listed() {
        let text: Vec<String> = (0..11).map(|number| format!("w{number:02}")).collect();
        let stats = Stats::of(&text.join(" "));
        assert_eq!((stats.top_words.len(), stats.distinct_words), (TOP, 11));
    }

    #[test]
    fn text_without_words_has_none() {
        for text in ["", "  \n -- ' ''"] {
            let stats = Stats::of(text);
            assert_eq!((stats.words, stats.longest_word, stats.top_words), (0, None, vec![]));
        }
    }
}
