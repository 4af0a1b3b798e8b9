# Runs the cases of this folder in one process and writes what became of them: tests/powershell.rs calls it.
#   pwsh -NoProfile -NonInteractive -File tests/powershell/run.ps1 [-Name 'install*'] [-Report FILE]
# No Pester: these cases need a fresh tenant and a line in a report, and a machine with pwsh alone must run them.
[CmdletBinding()]
param(
    [string]$Templates = (Join-Path $PSScriptRoot '../../connector-templates'),
    [string]$Name = '*',
    [string]$Report = '',
    [string]$Work = ''
)
Set-StrictMode -Version 2.0
$ErrorActionPreference = 'Stop'
$env:PSModulePath = (Join-Path $PSScriptRoot 'modules') + [System.IO.Path]::PathSeparator + $env:PSModulePath
Import-Module (Join-Path $PSScriptRoot 'modules/StandIn/StandIn.psd1')
Import-Module (Join-Path $PSScriptRoot 'modules/ScriptCheck/ScriptCheck.psm1')
Import-Module (Join-Path $PSScriptRoot 'modules/Bench/Bench.psm1')
Initialize-Bench -Templates $Templates -Work $Work
foreach ($file in (Get-ChildItem -LiteralPath (Join-Path $PSScriptRoot 'cases') -Filter '*.ps1' | Sort-Object -Property Name)) { . $file.FullName }
$failed = Invoke-Bench -Name $Name -Report $Report
if ($failed -gt 0) { exit 1 }
