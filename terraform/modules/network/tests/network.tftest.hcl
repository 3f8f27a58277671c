mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { name = "eu-central-1" }
  }
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{}" }
  }
  mock_resource "aws_cloudwatch_log_group" {
    defaults = { arn = "arn:aws:logs:eu-central-1:111122223333:log-group:x" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::111122223333:role/x" }
  }
}

variables {
  name               = "mesh"
  availability_zones = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
  kms_key_arn        = "arn:aws:kms:eu-central-1:111122223333:key/x"
}

run "a_network_of_three_layers_in_three_zones" {
  # Every zone has three subnets that do not overlap.
  assert {
    condition     = [for zone in var.availability_zones : aws_subnet.private[zone].cidr_block] == ["10.20.0.0/20", "10.20.16.0/20", "10.20.32.0/20"]
    error_message = "Private subnets begin at the bottom."
  }
  assert {
    condition     = [for zone in var.availability_zones : aws_subnet.public[zone].cidr_block] == ["10.20.240.0/24", "10.20.241.0/24", "10.20.242.0/24"]
    error_message = "Public subnets are at the top."
  }
  assert {
    condition     = [for zone in var.availability_zones : aws_subnet.data[zone].cidr_block] == ["10.20.248.0/24", "10.20.249.0/24", "10.20.250.0/24"]
    error_message = "Data subnets are above them."
  }
  assert {
    condition     = alltrue([for subnet in concat(values(aws_subnet.public), values(aws_subnet.private), values(aws_subnet.data)) : subnet.map_public_ip_on_launch != true])
    error_message = "Nothing gets a public address by itself."
  }
  assert {
    condition     = output.private_subnet_ids == [for zone in var.availability_zones : aws_subnet.private[zone].id]
    error_message = "Subnets are given in the order of the zones."
  }

  # Each zone goes out by its own gateway.
  assert {
    condition     = alltrue([for zone in var.availability_zones : aws_route.nat[zone].nat_gateway_id == aws_nat_gateway.this[zone].id])
    error_message = "The loss of a zone must not cut another off."
  }
  assert {
    condition     = length(aws_route_table_association.data) == 3 && alltrue([for association in aws_route_table_association.data : association.route_table_id == aws_route_table.data.id])
    error_message = "Databases share a table without routes."
  }
  assert {
    condition     = !contains([for route in aws_route.nat : route.route_table_id], aws_route_table.data.id) && aws_route.public.route_table_id == aws_route_table.public.id
    error_message = "No route leads from the databases out."
  }

  # What is asked of AWS stays inside.
  assert {
    condition     = keys(aws_vpc_endpoint.interface) == ["ec2", "ecr.api", "ecr.dkr", "eks", "sts"] && alltrue([for endpoint in aws_vpc_endpoint.interface : endpoint.private_dns_enabled])
    error_message = "What nodes need to join must be inside."
  }
  assert {
    condition     = aws_vpc_endpoint.s3.vpc_endpoint_type == "Gateway" && length(aws_vpc_endpoint.s3.route_table_ids) == 3
    error_message = "Every private subnet reaches S3 by the gateway endpoint."
  }
  assert {
    condition     = aws_vpc_security_group_ingress_rule.endpoints.cidr_ipv4 == "10.20.0.0/16" && aws_vpc_security_group_ingress_rule.endpoints.to_port == 443
    error_message = "Endpoints take HTTPS from the VPC alone."
  }

  # Flows are logged and encrypted.
  assert {
    condition     = aws_cloudwatch_log_group.flow.kms_key_id == var.kms_key_arn && aws_cloudwatch_log_group.flow.retention_in_days == 365
    error_message = "The log must be encrypted and kept for a year."
  }
  assert {
    condition     = length(aws_default_security_group.this.ingress) == 0
    error_message = "The default group lets nothing in."
  }
}

run "one_gateway_serves_all_zones_if_asked_for" {
  command = plan

  variables {
    nat = "single"
  }

  assert {
    condition     = keys(aws_nat_gateway.this) == ["eu-central-1a"] && length(aws_route.nat) == 3
    error_message = "All zones go out by the first one's gateway."
  }
}

run "without_nat_there_is_no_way_out" {
  command = plan

  variables {
    nat = "none"
  }

  assert {
    condition     = length(aws_nat_gateway.this) == 0 && length(aws_route.nat) == 0 && length(aws_eip.nat) == 0
    error_message = "No gateway, no route, no address."
  }
}

run "small_ranges_single_zones_and_nodes_cut_off_are_refused" {
  command = plan

  variables {
    cidr                = "10.20.0.0/24"
    availability_zones  = ["eu-central-1a"]
    nat                 = "none"
    interface_endpoints = ["sts"]
  }

  expect_failures = [var.availability_zones, var.cidr, var.interface_endpoints]
}

run "a_zone_named_twice_is_refused" {
  command = plan

  variables {
    availability_zones = ["eu-central-1a", "eu-central-1a"]
  }

  expect_failures = [var.availability_zones]
}
