//! Reads the Prometheus text that `/metrics` answers.

use std::collections::BTreeMap;

#[derive(Debug)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

pub struct Metrics(Vec<Sample>);

impl Metrics {
    #[track_caller]
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(lines.map(|line| sample(line).unwrap_or_else(|| panic!("no sample: {line}"))).collect())
    }

    /// The series of a metric, those of a histogram or a summary included.
    pub fn series(&self, metric: &str) -> Vec<&Sample> {
        let belongs = |name: &str| {
            name.strip_prefix(metric).is_some_and(|rest| matches!(rest, "" | "_bucket" | "_sum" | "_count"))
        };
        self.0.iter().filter(|sample| belongs(&sample.name)).collect()
    }

    /// The sum of the samples with these labels. Topics and groups are named without the test's prefix.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let has = |sample: &Sample, label: &str, wanted: &str| {
            sample.labels.get(label).is_some_and(|value| value.rsplit('.').next() == Some(wanted))
        };
        let samples = self.0.iter().filter(|sample| sample.name == name);
        let wanted = samples.filter(|sample| labels.iter().all(|(label, value)| has(sample, label, value)));
        wanted.map(|sample| sample.value).sum::<f64>().round() as u64
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (series, value) = match line.rfind('}') {
        Some(end) => (&line[..end], line[end + 1..].trim()),
        None => line.split_once(' ')?,
    };
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let mut found = BTreeMap::new();
    let mut rest = labels;
    while let Some((label, quoted)) = rest.split_once("=\"") {
        let end = closing_quote(quoted)?;
        found.insert(label.to_owned(), quoted[..end].to_owned());
        rest = quoted[end + 1..].trim_start_matches(',');
    }
    Some(Sample { name: name.to_owned(), labels: found, value: value.split(' ').next()?.parse().ok()? })
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, c)| {
        let closes = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        closes.then_some(at)
    })
}
