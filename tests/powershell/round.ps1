# The whole round: a folder that 'gatepost connector render' wrote is installed into the stand-in, exported from it, and compared by
# 'gatepost connector diff'; then each property is changed by itself, and the line that diff gives mends it.
#   pwsh -NoProfile -NonInteractive -File tests/powershell/round.ps1 -Kit FOLDER -Work FOLDER -Gatepost FILE -Config FILE
# tests/scenarios/connector_round.rs calls it; -Alone: the folder is for applications alone, without the way from Exchange to Gatepost; -States: instead of
# that, each of the four objects absent, right, drifted or made by hand under another name, in combinations, and the lines of diff run as printed ('Covering':
# every combination of any three objects, 64 in all; 'All': all 256). Writes one line for each thing that went wrong, and a last one.
[CmdletBinding()]
param([string]$Kit, [string]$Work, [string]$Gatepost, [string]$Config, [string]$TenantId, [string[]]$AcceptedDomains, [switch]$Alone, [ValidateSet('', 'Covering', 'All')][string]$States = '')
Set-StrictMode -Version 2.0
$ErrorActionPreference = 'Stop'
$env:PSModulePath = (Join-Path $PSScriptRoot 'modules') + [System.IO.Path]::PathSeparator + $env:PSModulePath
Import-Module (Join-Path $PSScriptRoot 'modules/StandIn/StandIn.psd1')
Reset-StandIn
[void](Add-StandInTenant -TenantId $TenantId -AcceptedDomains @($AcceptedDomains -split ',') -Groups @('pilot@contoso.com'))
Set-Location -LiteralPath $Kit
$script:Failures = 0
$script:Steps = 0

function Confirm-Step {
    param([bool]$Good, [string]$Text)
    $script:Steps++
    if (-not $Good) { $script:Failures++; [Console]::Out.WriteLine("WRONG $Text") }
}

# What diff says of the tenant as it is.
function Get-Drift {
    $folder = Join-Path $Work ([guid]::NewGuid().ToString('N'))
    [void](& ./Export-GatepostState.ps1 -Folder $folder)
    $json = & $Gatepost connector diff --config $Config --tenant contoso --exports $folder --json 2>$null
    @{ Status = $LASTEXITCODE; Report = (($json -join '') | ConvertFrom-Json); Drift = @() + @((($json -join '') | ConvertFrom-Json).drift) }
}

function Show-Drift {
    param($Said)
    @($Said.Drift | ForEach-Object { "$($_.name) $($_.property) is $($_.is)" }) -join '; '
}

# One change behind the scripts' back: diff finds exactly it, so that the one before it must have been mended, and its line is run.
function Test-Drift {
    param([string]$Name, [string]$Property, [string]$What)
    $said = Get-Drift
    $found = $said.Drift
    Confirm-Step ($said.Status -eq 1 -and $found.Count -eq 1 -and $found[0].name -eq $Name -and $found[0].property -eq $Property) "$What`: found $(Show-Drift $said)"
    foreach ($one in $found) {
        $line = $one.mend.line
        try { [void](Invoke-Expression $line) } catch { Confirm-Step $false "$What`: the line fails: $line`: $_" }
    }
}

$preflight = & ./Test-GatepostPreflight.ps1
Confirm-Step (@($preflight | Where-Object { $_.Action -eq 'Failed' }).Count -eq 0) 'the preflight finds nothing in the way'
[void](& ./Install-GatepostConnector.ps1)
$said = Get-Drift
$begun = 'Stop'
if ($Alone) { $begun = $null }
Confirm-Step ($said.Status -eq 0 -and $said.Report.stage -eq $begun) "installed: $(Show-Drift $said)"
$again = @(& ./Install-GatepostConnector.ps1 | Where-Object { $_.Action -ne 'Unchanged' })
Confirm-Step ($again.Count -eq 0) 'a second run changes nothing'
Connect-ExchangeOnline -ShowBanner:$false -UserPrincipalName 'admin@contoso.com'

# Combinations of the four objects: what diff prints is pasted from top to bottom, each line runs, and a second diff has nothing left to say.
if ($States) {
    . (Join-Path $PSScriptRoot 'states.ps1')
    [Console]::Out.WriteLine("$($script:Steps) steps, $($script:Failures) wrong")
    if ($script:Failures -gt 0) { exit 1 }
    exit 0
}

# Every property that a rendering decides, with a wrong value.
$wrong = [ordered]@{
    'Inbound:From Gatepost' = [ordered]@{
        Comment = 'mine'; Enabled = $false; ConnectorType = 'Partner'; SenderDomains = @('smtp:fabrikam.com;1'); TlsSenderCertificateName = 'x.contoso.com'; RequireTls = $false
        RestrictDomainsToCertificate = $false; RestrictDomainsToIPAddresses = $true; CloudServicesMailEnabled = $false; TreatMessagesAsInternal = $true
        AssociatedAcceptedDomains = @('contoso.com'); TrustedOrganizations = @('fabrikam.onmicrosoft.com')
    }
    'Outbound:To Gatepost' = [ordered]@{
        Comment = ''; Enabled = $false; TestMode = $true; ConnectorType = 'Partner'; IsTransportRuleScoped = $false; UseMXRecord = $true; SmartHosts = @('other.contoso.com')
        TlsSettings = 'EncryptionOnly'; TlsDomain = '*.contoso.com'; CloudServicesMailEnabled = $false; RouteAllMessagesViaOnPremises = $true; AllAcceptedDomains = $true
        RecipientDomains = @('contoso.com'); SmtpDaneMode = 'Mandatory'
    }
    'Rules:Route to Gatepost' = [ordered]@{
        Comments = $null; FromScope = 'NotInOrganization'; RouteMessageOutboundConnector = 'Elsewhere'; SetHeaderName = 'X-Other'; SetHeaderValue = 'a guess'
        StopRuleProcessing = $false; ExceptIfHeaderContainsMessageHeader = 'X-Other'; ExceptIfHeaderContainsWords = @('old'); SetAuditSeverity = 'DoNotAudit'
        ExpiryDate = [datetime]'2026-01-31'; RemoveHeader = 'X-Other'; GenerateIncidentReport = 'admin@contoso.com'; PrependSubject = 'x'; DeleteMessage = $true
    }
    'Rules:Back from Gatepost' = [ordered]@{
        Comments = 'x'; State = 'Disabled'; Mode = 'Audit'; HeaderContainsMessageHeader = 'X-Other'; HeaderContainsWords = @('old'); RemoveHeader = 'X-Other'
        StopRuleProcessing = $true; SetAuditSeverity = 'High'; ExpiryDate = [datetime]'2026-01-31'; BlindCopyTo = @('admin@contoso.com'); SentToScope = 'NotInOrganization'
    }
}
foreach ($key in $wrong.Keys) {
    $kind, $name = $key -split ':', 2
    if ($Alone -and $kind -ne 'Inbound') { continue }
    foreach ($property in $wrong[$key].Keys) {
        Set-StandInProperty -Kind $kind -Name $name -Property $property -Value $wrong[$key][$property]
        Test-Drift -Name $name -Property $property -What "$name $property"
    }
}

# Made by hand under another name: one finding beside what is wrong with it, and the lines in their order take it over.
foreach ($key in $wrong.Keys) {
    $kind, $name = $key -split ':', 2
    if (($Alone -and $kind -ne 'Inbound') -or $kind -eq 'Outbound') { continue }
    $comment, $stray, $value = 'Comments', 'SetAuditSeverity', 'High'
    if ($kind -eq 'Inbound') { $comment, $stray, $value = 'Comment', 'RequireTls', $false }
    foreach ($pair in @(@($stray, $value), @($comment, 'by hand'), @('Name', 'Smart host'))) { Set-StandInProperty -Kind $kind -Name $name -Property $pair[0] -Value $pair[1] }
    $said = Get-Drift
    Confirm-Step ((@($said.Drift | ForEach-Object { $_.property }) -join ',') -eq "$stray,Name") "$name by hand: $(Show-Drift $said)"
    foreach ($one in $said.Drift) {
        try { [void](Invoke-Expression $one.mend.line) } catch { Confirm-Step $false "$name by hand: the line fails: $($one.mend.line)`: $_" }
    }
    $said = Get-Drift
    Confirm-Step ($said.Status -eq 0) "$name taken over: $(Show-Drift $said)"
}

if ($Alone) {
    $said = Get-Drift
    Confirm-Step ($said.Status -eq 0) "all mended: $(Show-Drift $said)"
    Confirm-Step (@(Get-OutboundConnector -IncludeTestModeConnectors $true).Count -eq 0 -and @(Get-TransportRule).Count -eq 0) 'no outbound connector and no rule'
    [void](& ./Remove-GatepostConnector.ps1 -WaitMinutes 0 -Confirm:$false -WarningAction SilentlyContinue)
    $said = Get-Drift
    Confirm-Step ($said.Status -eq 1 -and $said.Drift.Count -eq 1 -and $said.Drift[0].is -eq 'absent') "removed: $(Show-Drift $said)"
    [Console]::Out.WriteLine("$($script:Steps) steps, $($script:Failures) wrong")
    if ($script:Failures -gt 0) { exit 1 }
    exit 0
}

# The order of the rules.
[void](New-TransportRule -Name 'Theirs' -Priority 0 -StopRuleProcessing $true -PrependSubject 'x' -Confirm:$false)
Test-Drift -Name 'Route to Gatepost' -Property 'Priority' -What 'a foreign rule before ours'
Set-TransportRule -Identity 'Theirs' -Priority 1 -Confirm:$false
Test-Drift -Name 'Back from Gatepost' -Property 'Priority' -What 'a foreign rule between ours'
Set-TransportRule -Identity 'Back from Gatepost' -Priority 0 -Confirm:$false
Test-Drift -Name 'Back from Gatepost' -Property 'Priority' -What 'the clean-up rule first'

$said = Get-Drift
Confirm-Step ($said.Status -eq 0) "all mended: $(Show-Drift $said)"

# The rollout is no drift; once it sends mail, Exchange must have validated the connector.
foreach ($stage in 'Audit', 'Pilot', 'Everyone', 'Stop') {
    [void](& ./Set-GatepostRollout.ps1 -Stage $stage -PilotGroup 'pilot@contoso.com' -Force -WarningAction SilentlyContinue)
    $said = Get-Drift
    $expected = @()
    if ('Pilot', 'Everyone' -contains $stage) { $expected = @('IsValidated') }
    Confirm-Step ($said.Report.stage -eq $stage -and (@($said.Drift | ForEach-Object { $_.property }) -join ',') -eq ($expected -join ',')) "stage $stage`: $($said.Report.stage), $(Show-Drift $said)"
}
[Console]::Out.WriteLine("$($script:Steps) steps, $($script:Failures) wrong")
if ($script:Failures -gt 0) { exit 1 }
