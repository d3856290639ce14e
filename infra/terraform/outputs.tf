output "values" {
  description = "For values.yaml of the overlay: what is scanned, where to, with which models. BUNDLE is the folder of one of them."
  value = {
    FFAA_INPUT  = "s3://${local.images_bucket}/${var.images.prefix}"
    FFAA_OUTPUT = "s3://${aws_s3_bucket.this["verdicts"].id}/${trimsuffix(var.verdicts_prefix, "/")}"
    FFAA_BUNDLE = "s3://${aws_s3_bucket.this["bundles"].id}/${var.bundles_prefix}BUNDLE"
  }
}

output "inventory" {
  description = "The inventory's folder, which can be FFAA_INPUT instead: each night takes the newest report in it."
  value       = "s3://${aws_s3_bucket.this["inventory"].id}/${local.inventory_prefix}"
}

output "role_arns" {
  description = "For eks.amazonaws.com/role-arn of the service accounts: nightly and service."
  value       = { for kind, role in aws_iam_role.this : kind => role.arn }
}

output "image_repository" {
  description = "For the overlay's images, and for docker push."
  value       = aws_ecr_repository.this.repository_url
}

output "faces" {
  description = "The bucket and the KMS key for crops and heatmaps; null where none are to be kept."
  value = var.face_pictures_days == null ? null : {
    bucket  = aws_s3_bucket.this["faces"].id
    key_arn = aws_kms_key.faces[0].arn
  }
}
