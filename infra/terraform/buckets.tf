data "aws_caller_identity" "this" {}
data "aws_partition" "this" {}

locals {
  account = data.aws_caller_identity.this.account_id
  ours = toset(concat(
    ["verdicts", "bundles", "inventory"],
    var.images.bucket == null ? ["images"] : [],
    var.face_pictures_days == null ? [] : ["faces"],
  ))
  images_bucket = coalesce(var.images.bucket, "${var.name}-images-${local.account}")
  images_arn    = "arn:${data.aws_partition.this.partition}:s3:::${local.images_bucket}"

  kms_key_arns = merge(
    { for key in aws_kms_key.faces : "faces" => key.arn },
    var.images.kms_key_arn == null ? {} : { images = var.images.kms_key_arn },
  )

  # Days after which the newest version of an object goes, too.
  kept_days = { for kind, days in { inventory = var.inventory_days, faces = var.face_pictures_days } : kind => days if days != null }
}

resource "aws_s3_bucket" "this" {
  for_each = local.ours

  bucket = "${var.name}-${each.key}-${local.account}"
  tags   = var.tags
}

resource "aws_s3_bucket_versioning" "this" {
  for_each = aws_s3_bucket.this

  bucket = each.value.id
  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_public_access_block" "this" {
  for_each = aws_s3_bucket.this

  bucket                  = each.value.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "this" {
  for_each = aws_s3_bucket.this

  bucket = each.value.id
  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_kms_key" "faces" {
  count = var.face_pictures_days == null ? 0 : 1

  description             = "Crops and heatmaps of faces (${var.name})"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  tags                    = var.tags
}

resource "aws_kms_alias" "faces" {
  count = length(aws_kms_key.faces)

  name          = "alias/${var.name}-faces"
  target_key_id = aws_kms_key.faces[0].key_id
}

resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  for_each = aws_s3_bucket.this

  bucket = each.value.id
  rule {
    bucket_key_enabled = contains(keys(local.kms_key_arns), each.key)
    apply_server_side_encryption_by_default {
      sse_algorithm     = contains(keys(local.kms_key_arns), each.key) ? "aws:kms" : "AES256"
      kms_master_key_id = lookup(local.kms_key_arns, each.key, null)
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "this" {
  for_each = aws_s3_bucket.this

  bucket = each.value.id

  rule {
    id     = "leftovers"
    status = "Enabled"
    filter {}
    abort_incomplete_multipart_upload {
      days_after_initiation = 3
    }
    noncurrent_version_expiration {
      noncurrent_days = each.key == "faces" ? 1 : var.noncurrent_days
    }
  }

  dynamic "rule" {
    for_each = contains(keys(local.kept_days), each.key) ? [local.kept_days[each.key]] : []
    content {
      id     = "retention"
      status = "Enabled"
      filter {}
      expiration {
        days = rule.value
      }
    }
  }

  # With an expiration in days, S3 removes the delete markers by itself.
  dynamic "rule" {
    for_each = contains(keys(local.kept_days), each.key) ? [] : ["delete-markers"]
    content {
      id     = rule.value
      status = "Enabled"
      filter {}
      expiration {
        expired_object_delete_marker = true
      }
    }
  }

  depends_on = [aws_s3_bucket_versioning.this]
}

data "aws_iam_policy_document" "bucket" {
  for_each = aws_s3_bucket.this

  statement {
    sid       = "TlsOnly"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [each.value.arn, "${each.value.arn}/*"]
    principals {
      type        = "*"
      identifiers = ["*"]
    }
    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }

  dynamic "statement" {
    for_each = each.key == "inventory" ? [local.images_arn] : []
    content {
      sid       = "Reports"
      actions   = ["s3:PutObject"]
      resources = ["${each.value.arn}/*"]
      principals {
        type        = "Service"
        identifiers = ["s3.amazonaws.com"]
      }
      condition {
        test     = "ArnLike"
        variable = "aws:SourceArn"
        values   = [statement.value]
      }
      condition {
        test     = "StringEquals"
        variable = "aws:SourceAccount"
        values   = [local.account]
      }
    }
  }
}

resource "aws_s3_bucket_policy" "this" {
  for_each = aws_s3_bucket.this

  bucket = each.value.id
  policy = data.aws_iam_policy_document.bucket[each.key].json

  depends_on = [aws_s3_bucket_public_access_block.this]
}
