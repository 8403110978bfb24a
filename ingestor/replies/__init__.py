"""What leaves because of what came: opt-outs, automated answers, Agile's REST API, delivery reports."""
