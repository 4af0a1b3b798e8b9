# The static checks: each rule catches a bad sample, and the scripts have no finding.

$sample = @'
#Requires -Version 5.1

<#
.SYNOPSIS
Sets something.
.DESCRIPTION
A sample in which no rule finds anything.
.PARAMETER Name
The name of the connector.
.PARAMETER SmartHosts
The hosts.
.PARAMETER TlsDomain
The name in the certificate.
.PARAMETER AppId
The application.
.EXAMPLE
.\Set-GatepostSample.ps1 -Name 'a' -WhatIf
.EXAMPLE
.\Set-GatepostSample.ps1 -AppId 'b'
.OUTPUTS
System.Management.Automation.PSCustomObject
.NOTES
Exchange Administrator.
#>
[CmdletBinding(SupportsShouldProcess = $true, ConfirmImpact = 'Medium')]
param(
    [string]$Name = 'To Gatepost',
    [string[]]$SmartHosts = @('@SmartHosts@'),
    [string]$TlsDomain = '@TlsDomain@',
    [string]$AppId = ''
)

Set-StrictMode -Version 2.0
$ErrorActionPreference = 'Stop'

#region Common
function Get-Wanted {
    param([string]$Name)
    @{ ConnectorType = 'OnPremises'; Enabled = $true; Comment = $Name }
}
#endregion Common

function Set-Drift {
    param([string]$Cmdlet, [hashtable]$Parameters)
    & $Cmdlet @Parameters -Confirm:$false -ErrorAction Stop
}

$wanted = Get-Wanted -Name $Name
$wanted['SmartHosts'] = $SmartHosts
$wanted.TlsDomain = $TlsDomain
$found = @(Get-OutboundConnector -IncludeTestModeConnectors $true -ErrorAction Stop | Where-Object { $_.Name -eq $Name })
$changes = @{}
foreach ($key in $wanted.Keys) {
    if ($found[0].$key -ne $wanted[$key]) { $changes[$key] = $wanted[$key] }
}
try {
    if ($PSCmdlet.ShouldProcess($Name, 'Set')) {
        $changes.Add('Identity', $Name)
        Set-Drift -Cmdlet 'Set-OutboundConnector' -Parameters $changes
        Set-TransportRule -Identity $AppId -Mode 'Audit' -Confirm:$false -ErrorAction Stop
    }
} catch {
    throw
}
'@ -replace "`r?`n", "`r`n"
$sample += "`r`n"

function Get-SampleFinding {
    param([string]$Text, [string]$Name = 'Set-GatepostSample.ps1')
    Get-ScriptFinding -Name $Name -Bytes ([System.Text.Encoding]::GetEncoding(28591).GetBytes($Text))
}

Test-Case 'static: a sample without fault has no finding' {
    Assert-Equal (Get-SampleFinding $sample | ForEach-Object { "$($_.Line) $($_.Rule): $($_.Message)" }) @() 'no finding'
}

# Rule, what is put for what, part of the message.
$badSamples = @(
    @('Syntax', '$changes = @{}', '$changes = @{', 'Missing'),
    @('Ascii', 'Sets something.', "Sets something $([char]0xE9).", '0xE9'),
    @('LineEnd', "`$changes = @{}`r`n", "`$changes = @{}`n", 'LF without CR'),
    @('LineEnd', "    throw`r`n}`r`n", "    throw`r`n}", 'no line end'),
    @('LineEnd', "`$changes = @{}`r`n", "`$changes = @{}`r", 'CR without LF'),
    @('Whitespace', '$changes = @{}', '$changes = @{} ', 'white space'),
    @('Whitespace', '    throw', "`tthrow", 'tab'),
    @('Version', '$changes = @{}', '$changes = $Name ? @{} : @{}', 'Ternary'),
    @('Version', '$changes = @{}', '$changes = $found ?? @{}', '\?\?'),
    @('Version', '$changes = @{}', '$changes = @{}; $changes ??= @{}', '\?\?='),
    @('Version', '$found[0].$key', '${found}?[0].$key', '\?\[\]'),
    @('Version', '$changes = @{}', "`$changes = @{}; Write-Verbose 'a' && Write-Verbose 'b'", 'PipelineChain'),
    @('Version', '$changes = @{}', "`$changes = @{}; if (`$IsWindows) { Write-Verbose 'a' }", 'IsWindows'),
    @('Version', '$changes = @{}', "`$changes = @{}; Set-Content -LiteralPath `$Name -Value 'a' -Encoding 'utf8NoBOM'", 'utf8NoBOM'),
    @('Version', '$changes = @{}', '$changes = @{}; [void][System.Security.Cryptography.SHA256]::HashData(@(1))', 'HashData'),
    @('Version', '$changes = @{}', "`$changes = @{}; [void]'a'.Contains('A', 'Ordinal')", 'Contains'),
    @('Version', '$changes = @{}', '$changes = @{}; [void]0b11', '0b11'),
    @('Version', '    param([string]$Name)', "    param([string]`$Name)`r`n    end { @{} }`r`n    clean { Write-Verbose 'a' }`r`n}`r`nfunction Get-Other {", 'clean'),
    @('Version', '$changes = @{}', "`$changes = @{}; Write-Verbose 'a' &", '&'),
    @('Parameter', '$changes = @{}', '$changes = @{}; $SmartHosts | ForEach-Object -Parallel { $_ }', 'Parallel'),
    @('Parameter', '$changes = @{}', '$changes = @{}; $SmartHosts | ConvertFrom-Json -AsHashtable', 'AsHashtable'),
    @('Parameter', "-Mode 'Audit'", '-Enabled $true', '-Enabled'),
    @('Parameter', "`$wanted['SmartHosts']", "`$wanted['SmartHost']", 'no parameter -SmartHost$'),
    @('Parameter', '$wanted.TlsDomain', '$wanted.TlsName', 'no parameter -TlsName'),
    @('Parameter', "`$changes.Add('Identity', `$Name)", "`$changes.Add('Identity', `$Name); `$changes.Add('Port', 25)", 'no parameter -Port'),
    @('Parameter', 'Comment = $Name', 'Comments = $Name', 'no parameter -Comments'),
    @('Parameter', 'Set-Drift -Cmdlet', 'Set-Drift -Command', 'no parameter -Command'),
    @('Mandatory', "`$changes.Add('Identity', `$Name)", '$changes = $changes', 'needs -Identity'),
    @('ParameterSet', '$changes = @{}', "`$changes = @{}; Disconnect-ExchangeOnline -ConnectionId 'a' -ModulePrefix 'b' -Confirm:`$false -ErrorAction Stop", 'no parameter set'),
    @('Value', "-Mode 'Audit'", "-Mode 'Test'", 'AuditAndNotify'),
    @('Value', "ConnectorType = 'OnPremises'", "ConnectorType = 'Internal'", 'Partner'),
    @('Value', 'Enabled = $true', "Enabled = 'True'", 'takes \$true'),
    @('Value', "-Mode 'Audit'", "-ExceptIfMessageTypeMatches @('OOF', 'Calendaring')", 'one value'),
    @('Command', "Set-Drift -Cmdlet 'Set-OutboundConnector'", "Set-Drift -Cmdlet 'Set-OutboundConnectors'", 'neither in the table'),
    @('Command', '$changes = @{}', '$changes = @{}; Get-Nothing', 'neither in the table'),
    @('Command', "Set-Drift -Cmdlet 'Set-OutboundConnector'", 'Set-Drift -Cmdlet "Set-$Name"', 'cannot be seen'),
    @('Splat', '-Parameters $changes', '-Parameters (ConvertFrom-Json -InputObject $Name)', 'cannot be seen'),
    @('Positional', "-Identity `$AppId -Mode 'Audit'", "`$AppId -Mode 'Audit'", 'without a parameter'),
    @('Alias', '$changes = @{}', '$changes = @{}; $SmartHosts | select -Property Length', 'Select-Object'),
    @('ErrorAction', '-IncludeTestModeConnectors $true -ErrorAction Stop', '-IncludeTestModeConnectors $true', 'Get-OutboundConnector'),
    @('Confirm', "-Mode 'Audit' -Confirm:`$false", "-Mode 'Audit'", 'may ask'),
    @('ShouldProcess', 'if ($PSCmdlet.ShouldProcess($Name, ''Set''))', 'if ($Name)', 'outside'),
    @('ShouldProcess', '$changes = @{}', "`$changes = @{}; Set-Drift -Cmdlet 'Set-OutboundConnector' -Parameters @{ Identity = 'a' }", 'outside'),
    @('Banned', '$changes = @{}', "`$changes = @{}; Write-Host 'a'", 'Write-Host'),
    @('Banned', '$changes = @{}', "`$changes = @{}; `$Name = Read-Host", 'Read-Host'),
    @('Banned', '$changes = @{}', '$changes = @{}; $SmartHosts | Format-Table', 'Format-Table'),
    @('Banned', '$changes = @{}', '$changes = @{}; Invoke-Expression -Command $Name', 'Invoke-Expression'),
    @('Banned', '$changes = @{}', '$changes = @{}; Clear-Host', 'Clear-Host'),
    @('Banned', '$changes = @{}', '$changes = @{}; $global:x = $Name', 'global'),
    @('Banned', '$changes = @{}', '$changes = @{}; ConvertTo-SecureString -String $Name', 'ConvertTo-SecureString'),
    @('Backtick', "-Mode 'Audit' -Confirm", "-Mode 'Audit' ```r`n            -Confirm", 'backtick'),
    @('EmptyCatch', "catch {`r`n    throw", "catch {`r`n", 'does nothing'),
    @('Null', '$changes = @{}', '$changes = @{}; if ($Name -eq $null) { throw }', 'left'),
    @('Automatic', '$changes = @{}', '$changes = @{}; $input = $Name; Write-Verbose $input', 'automatic'),
    @('Alone', '$changes = @{}', '$changes = @{}; . (Join-Path -Path $PSScriptRoot -ChildPath ''b.ps1'')', 'read in'),
    @('Requires', '#Requires -Version 5.1', '#Requires -Version 7.0', 'first line'),
    @('Strict', 'Set-StrictMode -Version 2.0', 'Set-StrictMode -Version 1.0', 'Set-StrictMode'),
    @('Strict', '$ErrorActionPreference = ''Stop''', '$ErrorActionPreference = ''Continue''', 'ErrorActionPreference'),
    @('Verb', 'Get-Wanted', 'Fetch-Wanted', 'approved'),
    @('Verb', 'Set-Drift', 'Set-Drifts', 'plural'),
    @('Help', ".PARAMETER TlsDomain`r`nThe name in the certificate.`r`n", '', 'TlsDomain is missing'),
    @('Help', '.PARAMETER TlsDomain', '.PARAMETER TlsName', 'no such parameter'),
    @('Help', ".NOTES`r`nExchange Administrator.`r`n", '', 'NOTES'),
    @('Help', ".OUTPUTS`r`nSystem.Management.Automation.PSCustomObject`r`n", '', 'OUTPUTS'),
    @('Help', ' -WhatIf', '', 'WhatIf'),
    @('Help', "ps1 -AppId 'b'", 'ps1', 'app-only'),
    @('Help', "-Name 'a' -WhatIf", "-Nam 'a' -WhatIf", 'uses -Nam'),
    @('Binding', '[CmdletBinding(SupportsShouldProcess = $true, ConfirmImpact = ''Medium'')]', '[CmdletBinding()]', 'SupportsShouldProcess'),
    @('Binding', 'ConfirmImpact = ''Medium''', 'ConfirmImpact = ''High''', 'Medium'),
    @('Binding', '[string]$AppId = ''''', '[string]$AppId = '''', [string]$Password', 'secret'),
    @('Secret', '$changes = @{}', '$changes = @{}; Write-Verbose ''q7Gd82kLmNp04RtVwX91''', 'could be a secret'),
    @('Secret', '$changes = @{}', '$changes = @{}; Write-Verbose ''contoso.onmicrosoft.com''', 'tenant'),
    @('Secret', '$changes = @{}', '$changes = @{}; Write-Verbose ''2f0b1c34-5d6e-4f70-8192-a3b4c5d6e7f8''', 'identifier'),
    @('Secret', '$changes = @{}', '$changes = @{}; $HeaderValue = ''opensesame''; Write-Verbose $HeaderValue', 'literal value'),
    @('Token', "'@TlsDomain@'", "'@TlsDomian@'", 'not a token'),
    @('Token', "'@TlsDomain@'", '"@TlsDomain@"', 'not a token'),
    @('Token', "@('@SmartHosts@')", "'@SmartHosts@'", 'declared'),
    @('Token', '$changes = @{}', '$changes = @{}; Write-Verbose ''@TlsDomain@''', 'outside'),
    @('Token', "`$TlsDomain = '@TlsDomain@'", "`$TlsDomain = '@TenantId@'", 'default value of'),
    @('Unused', '[string]$AppId = ''''', '[string]$AppId = '''', [string]$Other', '-Other'),
    @('Unused', '$changes = @{}', '$changes = @{}; $other = 1', 'never read'),
    @('Unused', 'function Set-Drift {', "function Get-Other { 1 }`r`nfunction Set-Drift {", 'never called')
)
foreach ($row in $badSamples) {
    Test-Case "static: $($row[0]) is found: $($row[2] -replace '\s+', ' ')" -With $row {
        param($row)
        Assert-That ($sample.Contains($row[1])) "the sample holds '$($row[1])'"
        $found = @(Get-SampleFinding $sample.Replace($row[1], $row[2]))
        $hits = @($found | Where-Object { $_.Rule -eq $row[0] -and $_.Message -match $row[3] })
        Assert-That ($hits.Count -gt 0) "a finding $($row[0]) like '$($row[3])', found: $(($found | ForEach-Object { "$($_.Rule): $($_.Message)" }) -join '; ')"
    }
}

Test-Case 'static: every rule has a bad sample' {
    $named = @(Get-ChildItem -Path (Join-Path $PSScriptRoot '../modules/ScriptCheck') -Filter '*.ps1*' | ForEach-Object {
        [regex]::Matches([System.IO.File]::ReadAllText($_.FullName), "Rule '(\w+)'|Rule = '(\w+)'") | ForEach-Object { $_.Groups[1].Value + $_.Groups[2].Value }
    } | Sort-Object -Unique)
    Assert-That ($named.Count -gt 25) "the rules are found in the sources, found $($named.Count)"
    Assert-Equal @($named | Where-Object { @($badSamples | ForEach-Object { $_[0] }) -notcontains $_ -and $_ -ne 'Region' }) @() 'rules without a sample'
}

Test-Case 'static: a common region that differs is found, a script without one, a token that no script has' {
    $bytes = { param($text) [System.Text.Encoding]::ASCII.GetBytes($text) }
    $files = @{ 'Set-A.ps1' = (& $bytes $sample); 'Set-B.ps1' = (& $bytes $sample.Replace("Enabled = `$true", "Enabled = `$false")); 'Set-C.ps1' = (& $bytes 'x') }
    $found = @(Get-FolderFinding -Files $files)
    Assert-That (@($found | Where-Object { $_.Script -eq 'Set-B.ps1' -and $_.Message -match 'its line 4' }).Count -eq 1) 'the difference is named'
    Assert-That (@($found | Where-Object { $_.Script -eq 'Set-C.ps1' -and $_.Rule -eq 'Region' }).Count -eq 1) 'the missing region is named'
    Assert-That (@($found | Where-Object { $_.Rule -eq 'Token' -and $_.Message -match 'PilotGroup' }).Count -eq 1) 'the missing token is named'
}

$files = [ordered]@{}
if (Test-Path -LiteralPath (Get-TemplateFolder)) {
    foreach ($file in (Get-ChildItem -LiteralPath (Get-TemplateFolder) -Filter '*.ps1' | Sort-Object -Property Name)) { $files[$file.Name] = [System.IO.File]::ReadAllBytes($file.FullName) }
}
foreach ($name in $files.Keys) {
    Test-Case "static: $name has no finding" -With $name {
        param($name)
        Assert-Equal (Get-ScriptFinding -Name $name -Bytes $files[$name] | ForEach-Object { "$name`:$($_.Line) $($_.Rule): $($_.Message)" }) @() "no finding in $name"
    }
}
Test-Case 'static: the scripts are those of the kit, with one common region and all tokens' {
    Assert-Equal @($files.Keys) @(
        'Confirm-GatepostConnector.ps1', 'Export-GatepostState.ps1', 'Install-GatepostConnector.ps1', 'Remove-GatepostConnector.ps1', 'Repair-GatepostConnector.ps1',
        'Set-GatepostArcSealer.ps1', 'Set-GatepostEnhancedFiltering.ps1', 'Set-GatepostRollout.ps1', 'Test-GatepostPreflight.ps1', 'Update-GatepostSecret.ps1'
    ) 'the scripts'
    Assert-Equal (Get-FolderFinding -Files $files | ForEach-Object { "$($_.Script) $($_.Rule): $($_.Message)" }) @() 'no finding'
}
