# Runs the cases of this folder in one process and writes what became of them: tests/powershell.rs calls it.
#   pwsh -NoProfile -NonInteractive -File tests/powershell/run.ps1 [-Only 'install*'] [-Report FILE]
# No Pester: these cases need a fresh tenant and a line in a report, and a machine with pwsh alone must run them.
[CmdletBinding()]
param(
    [string]$Templates = (Join-Path $PSScriptRoot '../../connector-templates'),
    [string]$Only = '*',
    [string]$Report = '',
    [string]$Work = ''
)

# In a scope of its own: pwsh -File runs this file in the global one, and there the cmdlets of a module would see its preferences.
$failed = & {
    Set-StrictMode -Version 2.0
    $ErrorActionPreference = 'Stop'
    $env:PSModulePath = (Join-Path $PSScriptRoot 'modules') + [System.IO.Path]::PathSeparator + $env:PSModulePath
    Import-Module (Join-Path $PSScriptRoot 'modules/StandIn/StandIn.psd1')
    Import-Module (Join-Path $PSScriptRoot 'modules/ScriptCheck/ScriptCheck.psm1')
    Import-Module (Join-Path $PSScriptRoot 'modules/Bench/Bench.psm1')
    Initialize-Bench -Templates $Templates -Work $Work
    foreach ($caseFile in (Get-ChildItem -LiteralPath (Join-Path $PSScriptRoot 'cases') -Filter '*.ps1' | Sort-Object -Property Name)) { . $caseFile.FullName }
    $failed = Invoke-Bench -Name $Only -Report $Report
    $failed
}
if (@($failed)[-1] -gt 0) { exit 1 }
