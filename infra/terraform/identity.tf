# Roles for service accounts of EKS, limited to what each of them calls. A test compares.

locals {
  issuer = trimprefix(regex("oidc-provider/.+$", var.cluster.oidc_provider_arn), "oidc-provider/")
  roles = {
    nightly = { accounts = var.cluster.nightly, policy = data.aws_iam_policy_document.nightly.json }
    service = { accounts = var.cluster.service, policy = data.aws_iam_policy_document.service.json }
  }
  images_objects  = "${local.images_arn}/${var.images.prefix}*"
  bundle_objects  = "${aws_s3_bucket.this["bundles"].arn}/${var.bundles_prefix}*"
  verdict_objects = "${aws_s3_bucket.this["verdicts"].arn}/${var.verdicts_prefix}*"
  # S3 puts the source bucket's name and the inventory's before all that it writes.
  inventory_prefix  = "${local.images_bucket}/${aws_s3_bucket_inventory.images.name}/"
  inventory_objects = "${aws_s3_bucket.this["inventory"].arn}/${local.inventory_prefix}*"
}

data "aws_iam_policy_document" "trust" {
  for_each = local.roles

  statement {
    actions = ["sts:AssumeRoleWithWebIdentity"]
    principals {
      type        = "Federated"
      identifiers = [var.cluster.oidc_provider_arn]
    }
    condition {
      test     = "StringEquals"
      variable = "${local.issuer}:aud"
      values   = ["sts.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "${local.issuer}:sub"
      values   = [for account in each.value.accounts : "system:serviceaccount:${account}"]
    }
  }
}

resource "aws_iam_role" "this" {
  for_each = local.roles

  name               = "${var.name}-${each.key}"
  assume_role_policy = data.aws_iam_policy_document.trust[each.key].json
  tags               = var.tags
}

resource "aws_iam_role_policy" "this" {
  for_each = local.roles

  name   = "storage"
  role   = aws_iam_role.this[each.key].id
  policy = each.value.policy
}

data "aws_iam_policy_document" "nightly" {
  statement {
    sid       = "ReadInput"
    actions   = ["s3:GetObject"]
    resources = [local.images_objects, local.inventory_objects, local.bundle_objects]
  }

  dynamic "statement" {
    for_each = var.images.kms_key_arn[*]
    content {
      sid       = "DecryptImages"
      actions   = ["kms:Decrypt"]
      resources = [statement.value]
      condition {
        test     = "StringLike"
        variable = "kms:ViaService"
        values   = ["s3.*.${data.aws_partition.this.dns_suffix}"]
      }
    }
  }

  # Whoever may not list is told 403, not 404, of an object that is gone.
  statement {
    sid       = "ListInput"
    actions   = ["s3:ListBucket"]
    resources = [local.images_arn]
    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = ["${var.images.prefix}*"]
    }
  }

  # To find the newest report.
  statement {
    sid       = "ListReports"
    actions   = ["s3:ListBucket"]
    resources = [aws_s3_bucket.this["inventory"].arn]
    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = ["${local.inventory_prefix}*"]
    }
  }

  # Nothing is deleted: `ffaa table gc` and `ffaa doctor` are for a person's own role.
  statement {
    sid       = "KeepTable"
    actions   = ["s3:GetObject", "s3:PutObject"]
    resources = [local.verdict_objects]
  }

  statement {
    sid       = "ListTable"
    actions   = ["s3:ListBucket"]
    resources = [aws_s3_bucket.this["verdicts"].arn]
    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = ["${var.verdicts_prefix}*"]
    }
  }
}

data "aws_iam_policy_document" "service" {
  statement {
    sid       = "Read"
    actions   = ["s3:GetObject"]
    resources = [local.images_objects, local.bundle_objects]
  }

  dynamic "statement" {
    for_each = var.images.kms_key_arn[*]
    content {
      sid       = "DecryptImages"
      actions   = ["kms:Decrypt"]
      resources = [statement.value]
      condition {
        test     = "StringLike"
        variable = "kms:ViaService"
        values   = ["s3.*.${data.aws_partition.this.dns_suffix}"]
      }
    }
  }

  # As above: a client's address of nothing is a 404.
  statement {
    sid       = "TellMissingImages"
    actions   = ["s3:ListBucket"]
    resources = [local.images_arn]
    condition {
      test     = "StringLike"
      variable = "s3:prefix"
      values   = ["${var.images.prefix}*"]
    }
  }
}
