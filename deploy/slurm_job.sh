#!/bin/bash
# $workers of the run in $run_dir.
# Written by distacme. It may be edited, and submitted by hand:
#   $submit
$directives

$prologue
$start
