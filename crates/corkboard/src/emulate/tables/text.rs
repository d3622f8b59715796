//! Titles, descriptions, tags, names of posters and addresses of images, and the few ways of
//! drawing that the tables need.

use std::{collections::BTreeSet, fmt::Write};

use super::{
    chance,
    vocabulary::{ADJECTIVES, Category, ELSEWHERE, EMOJI, ODD_POSTERS, POSTERS, SEASONS, SENTENCES, TITLES},
};
use crate::emulate::{mt19937::Random, tables::vocabulary::CATEGORIES};

/// The source cuts a description here and appends `…` and a no-break space.
const MAX_DESCRIPTION_CHARS: usize = 177;

#[derive(Clone, Copy)]
pub(super) struct Name {
    pub(super) first: &'static str,
    pub(super) last: &'static str,
}

pub(super) fn shuffle<T>(items: &mut [T], random: &mut Random) {
    for i in (1..items.len()).rev() {
        items.swap(i, random.below(i as u64 + 1) as usize);
    }
}

/// `n` different numbers in `[first, last]`, rising.
pub(super) fn distinct_between(first: i64, last: i64, n: usize, random: &mut Random) -> BTreeSet<i64> {
    let mut numbers = BTreeSet::new();
    while numbers.len() < n {
        numbers.insert(first + random.below((last - first + 1) as u64) as i64);
    }
    numbers
}

pub(super) fn one_of<T: Copy>(items: &[T], random: &mut Random) -> T {
    items[random.below(items.len() as u64) as usize]
}

/// Replaces the slots of a template; braces that hold no slot stand for themselves.
fn fill(template: &str, category: &Category, name: Option<Name>, random: &mut Random) -> String {
    let mut out = String::with_capacity(template.len() + 48);
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        out.push_str(&rest[..open]);
        rest = &rest[open + 1..];
        let Some((slot, after)) = rest.split_once('}') else { break };
        match slot {
            "topic" => out.push_str(one_of(category.topics, random)),
            "place" => out.push_str(one_of(category.places, random)),
            "who" => out.push_str(one_of(category.who, random)),
            "adj" => out.push_str(one_of(ADJECTIVES, random)),
            "a" => {
                let adjective = one_of(ADJECTIVES, random);
                out.push_str(if adjective.starts_with(['A', 'E', 'I', 'O']) { "an " } else { "a " });
                out.push_str(adjective);
            }
            "season" => out.push_str(one_of(SEASONS, random)),
            "n" => write!(out, "{}", random.randint(3, 101)).expect("writing to a String cannot fail"),
            "first" => out.push_str(name.map_or("", |n| n.first)),
            "last" => out.push_str(name.map_or("", |n| n.last)),
            _ => {
                out.push('{');
                continue;
            }
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Title and description; about one post in thirty is not in English.
pub(super) fn words(category: &Category, random: &mut Random) -> (String, String) {
    if chance(1, 30, random) {
        let (title, description) = one_of(ELSEWHERE, random);
        return (title.to_owned(), cut(description.to_owned()));
    }
    let mut title = fill(one_of(TITLES, random), category, None, random);
    if chance(1, 100, random) {
        title.push(' ');
        title.push_str(one_of(EMOJI, random));
    }
    (title, description(category, random))
}

fn description(category: &Category, random: &mut Random) -> String {
    let wished_chars = match random.below(100) {
        0..=13 => random.randint(12, 70),
        14..=31 => random.randint(70, 125),
        32..=57 => random.randint(125, 160),
        _ => 260,
    } as usize;
    let mut out = String::new();
    let mut n_chars = 0;
    while n_chars < wished_chars {
        let sentence = fill(one_of(SENTENCES, random), category, None, random);
        let n_more = sentence.chars().count() + 1;
        // The shorter ones end before they would be cut.
        if n_chars > 0 && wished_chars <= 160 && n_chars + n_more > MAX_DESCRIPTION_CHARS {
            break;
        }
        n_chars += n_more;
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(&sentence);
    }
    if chance(1, 100, random) {
        out.push(' ');
        out.push_str(one_of(EMOJI, random));
    }
    cut(out)
}

fn cut(mut description: String) -> String {
    if let Some((at, _)) = description.char_indices().nth(MAX_DESCRIPTION_CHARS) {
        description.truncate(at);
        description.truncate(description.trim_end().len());
        description.push_str("…\u{a0}");
    }
    description
}

/// `n` different tags, joined by commas.
pub(super) fn tags(category: &Category, n: usize, random: &mut Random) -> String {
    // As indices into the lists: comparing texts took a third of the time of all the tables.
    let mut tags: Vec<Tag> = Vec::with_capacity(n);
    while tags.len() < n {
        let form = random.below(10);
        let mut index_in = |list: &[&str]| random.below(list.len() as u64) as usize;
        let tag = match form {
            0..=4 => Tag::OfCategory(index_in(category.tags)),
            5..=6 => Tag::Topic(index_in(category.topics), ""),
            7 => Tag::Adjective(index_in(ADJECTIVES), index_in(category.topics)),
            8 => Tag::Topic(index_in(category.topics), " Ideas"),
            _ => Tag::Topic(index_in(category.topics), " Diy"),
        };
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    let mut out = String::with_capacity(n * 24);
    for tag in tags {
        if !out.is_empty() {
            out.push(',');
        }
        let parts = match tag {
            Tag::OfCategory(tag) => [category.tags[tag], "", ""],
            Tag::Topic(topic, end) => [category.topics[topic], end, ""],
            Tag::Adjective(adjective, topic) => [ADJECTIVES[adjective], " ", category.topics[topic]],
        };
        parts.into_iter().for_each(|part| out.push_str(part));
    }
    out
}

#[derive(PartialEq)]
enum Tag {
    OfCategory(usize),
    /// A topic with an ending.
    Topic(usize, &'static str),
    Adjective(usize, usize),
}

pub(super) fn poster_name(person: Name, random: &mut Random) -> String {
    let templates = if chance(1, 40, random) { ODD_POSTERS } else { POSTERS };
    let category = &CATEGORIES[random.below(CATEGORIES.len() as u64) as usize];
    fill(one_of(templates, random), category, Some(person), random)
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Media {
    Image,
    Video,
}

pub(super) fn image_src(media: Media, random: &mut Random) -> String {
    let hash = format!("{:032x}", random.getrandbits(128));
    let (a, b, c) = (&hash[0..2], &hash[2..4], &hash[4..6]);
    if media == Media::Video {
        let frame = if chance(1, 77, random) { "-00001" } else { ".0000001" };
        return format!("https://i.pinimg.com/videos/thumbnails/originals/{a}/{b}/{c}/{hash}{frame}.jpg");
    }
    let kind = match random.below(1_767) {
        0..=1_470 => "jpg",
        1_471..=1_751 => "png",
        1_752..=1_762 => "webp",
        _ => "gif",
    };
    format!("https://i.pinimg.com/originals/{a}/{b}/{c}/{hash}.{kind}")
}
