# What lies in the images' bucket, told by S3 once a day: millions of objects without millions of listings.
resource "aws_s3_bucket_inventory" "images" {
  bucket = local.images_bucket
  name   = var.name

  included_object_versions = "Current"
  optional_fields          = ["Size", "ETag"]

  schedule {
    frequency = "Daily"
  }
  filter {
    prefix = var.images.prefix
  }
  destination {
    bucket {
      bucket_arn = aws_s3_bucket.this["inventory"].arn
      account_id = local.account
      format     = "Parquet"
    }
  }

  depends_on = [aws_s3_bucket.this, aws_s3_bucket_policy.this]
}
