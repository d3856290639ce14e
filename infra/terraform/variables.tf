variable "name" {
  description = "Begins the names of everything that is made here."
  type        = string
  default     = "ffaa"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,19}$", var.name))
    error_message = "A name has 2 to 20 lower-case letters, digits and hyphens, and begins with a letter."
  }
}

variable "images" {
  description = "Where the images lie: a bucket that exists already, or null for a new one, the prefix of what may be read, and the KMS key that encrypts them, null where S3's own keys do."
  type = object({
    bucket      = optional(string)
    prefix      = optional(string, "uploads/")
    kms_key_arn = optional(string)
  })
  default = {}

  validation {
    condition     = can(regex("^([^/*?$]+/)+$", var.images.prefix))
    error_message = "A prefix is a folder such as uploads/2026/, without wildcards."
  }

  validation {
    condition     = can(regex("^arn:[^:*?]+:kms:[^:*?]+:[0-9]+:key/[^*?]+$", coalesce(var.images.kms_key_arn, "arn:aws:kms:-:0:key/-")))
    error_message = "A KMS key is named by its ARN, arn:aws:kms:REGION:ACCOUNT:key/ID: a policy takes no alias."
  }
}

variable "verdicts_prefix" {
  description = "The verdict table's place in its bucket."
  type        = string
  default     = "nightly/"

  validation {
    condition     = can(regex("^([^/*?$]+/)+$", var.verdicts_prefix))
    error_message = "A prefix is a folder such as nightly/, without wildcards."
  }
}

variable "bundles_prefix" {
  description = "The folder of the bundles in their bucket, which the roles may read. Each bundle has a folder of its own in it."
  type        = string
  default     = "ffaa/"

  validation {
    condition     = can(regex("^([^/*?$]+/)+$", var.bundles_prefix))
    error_message = "A prefix is a folder such as ffaa/, without wildcards."
  }
}

variable "noncurrent_days" {
  description = "Days for which what was overwritten or deleted can be had back."
  type        = number
  default     = 30
}

variable "inventory_days" {
  description = "Days for which a report of S3 Inventory is kept."
  type        = number
  default     = 14
}

variable "face_pictures_days" {
  description = "Days for which crops and heatmaps of faces are kept in a bucket of their own; null: there is none, for nothing of the kind is to be kept."
  type        = number
  default     = null
}

variable "cluster" {
  description = "The EKS cluster's OIDC provider and the service accounts, as namespace:name, of those who act for the scan and for the service."
  type = object({
    oidc_provider_arn = string
    nightly           = optional(set(string), ["ffaa:ffaa-head", "ffaa:ffaa-worker"])
    service           = optional(set(string), ["ffaa:ffaa-service-head", "ffaa:ffaa-service-worker"])
  })
}

variable "tags" {
  description = "Tags of everything that can have some."
  type        = map(string)
  default     = {}
}
