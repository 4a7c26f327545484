//! The templates of `config/templates`, compiled in.

macro_rules! files {
    ($($path:literal),* $(,)?) => {
        /// Path below `config/templates`, and content.
        pub const FILES: &[(&str, &str)] = &[
            $(($path, include_str!(concat!("../../../config/templates/", $path)))),*
        ];
    };
}

files![
    "layouts/base.de.html",
    "layouts/base.html",
    "layouts/row.html",
    "layouts/words.de.txt",
    "layouts/words.txt",
    "order_cancelled/body.de.html",
    "order_cancelled/body.de.txt",
    "order_cancelled/body.html",
    "order_cancelled/body.txt",
    "order_cancelled/sms.de.txt",
    "order_cancelled/sms.txt",
    "order_cancelled/subject.de.txt",
    "order_cancelled/subject.txt",
    "order_confirmation/body.de.html",
    "order_confirmation/body.de.txt",
    "order_confirmation/body.html",
    "order_confirmation/body.txt",
    "order_confirmation/sms.de.txt",
    "order_confirmation/sms.txt",
    "order_confirmation/subject.de.txt",
    "order_confirmation/subject.txt",
    "order_shipped/body.de.html",
    "order_shipped/body.de.txt",
    "order_shipped/body.html",
    "order_shipped/body.txt",
    "order_shipped/sms.de.txt",
    "order_shipped/sms.txt",
    "order_shipped/subject.de.txt",
    "order_shipped/subject.txt",
    "order_shipped/template.toml",
    "payment_confirmation/body.de.html",
    "payment_confirmation/body.de.txt",
    "payment_confirmation/body.html",
    "payment_confirmation/body.txt",
    "payment_confirmation/sms.de.txt",
    "payment_confirmation/sms.txt",
    "payment_confirmation/subject.de.txt",
    "payment_confirmation/subject.txt",
    "payment_failed/body.de.html",
    "payment_failed/body.de.txt",
    "payment_failed/body.html",
    "payment_failed/body.txt",
    "payment_failed/sms.de.txt",
    "payment_failed/sms.txt",
    "payment_failed/subject.de.txt",
    "payment_failed/subject.txt",
    "product_out_of_stock/body.de.html",
    "product_out_of_stock/body.de.txt",
    "product_out_of_stock/body.html",
    "product_out_of_stock/body.txt",
    "product_out_of_stock/sms.de.txt",
    "product_out_of_stock/sms.txt",
    "product_out_of_stock/subject.de.txt",
    "product_out_of_stock/subject.txt",
    "welcome/body.de.html",
    "welcome/body.de.txt",
    "welcome/body.html",
    "welcome/body.txt",
    "welcome/sms.de.txt",
    "welcome/sms.txt",
    "welcome/subject.de.txt",
    "welcome/subject.txt",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_folder_is_compiled_in() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/templates");
        let mut found = Vec::new();
        for group in std::fs::read_dir(&folder).expect("the folder") {
            for file in std::fs::read_dir(group.expect("an entry").path()).expect("a template's folder") {
                let path = file.expect("an entry").path();
                found.push(path.strip_prefix(&folder).expect("below it").to_str().expect("UTF-8").to_owned());
            }
        }
        found.sort();
        let mut listed: Vec<&str> = FILES.iter().map(|(path, _)| *path).collect();
        listed.sort_unstable();
        assert_eq!(listed, found);
    }
}
