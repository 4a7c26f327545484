//! The templates of `config/templates`, compiled in.

macro_rules! files {
    ($($path:literal),* $(,)?) => {
        /// Path below `config/templates`, and content.
        pub const FILES: &[(&str, &str)] = &[
            $(($path, include_str!(concat!("../../config/templates/", $path)))),*
        ];
    };
}

files![
    "layouts/base.html",
    "order_confirmation/subject.txt",
    "order_confirmation/body.txt",
    "order_confirmation/body.html",
    "order_confirmation/sms.txt",
    "payment_confirmation/subject.txt",
    "payment_confirmation/body.txt",
    "payment_confirmation/body.html",
    "payment_confirmation/sms.txt",
    "order_shipped/subject.txt",
    "order_shipped/body.txt",
    "order_shipped/body.html",
    "order_shipped/sms.txt",
    "order_cancelled/subject.txt",
    "order_cancelled/body.txt",
    "order_cancelled/body.html",
    "order_cancelled/sms.txt",
    "payment_failed/subject.txt",
    "payment_failed/body.txt",
    "payment_failed/body.html",
    "payment_failed/sms.txt",
    "welcome/subject.txt",
    "welcome/body.txt",
    "welcome/body.html",
    "welcome/sms.txt",
    "product_out_of_stock/subject.txt",
    "product_out_of_stock/body.txt",
    "product_out_of_stock/body.html",
    "product_out_of_stock/sms.txt",
];
