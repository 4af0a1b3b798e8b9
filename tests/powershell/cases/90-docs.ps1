# What the documentation prints, run as it is printed.

$connectorsText = Get-Content -Raw -LiteralPath (Join-Path $PSScriptRoot '../../../docs/connectors.md')

Test-Case 'docs: the set-up by hand runs from its first line to its last' {
    $null = Add-Contoso
    $section = @($connectorsText -split '(?m)^## ' | Where-Object { $_ -match '^By hand' })
    Assert-Equal $section.Count 1 'one section'
    $lines = @($section[0] -split '\r?\n' | Where-Object { $_ -match '^    ' } | ForEach-Object { $_.Substring(4) })
    Assert-That ($lines.Count -gt 20) 'its code'
    # A person answers both questions, and the one of the last line.
    function Read-Host { param($Prompt) "value-of-$(($Prompt -split ' ')[-1])" }
    $code = ($lines -join "`n") -replace "(?m)^(Disable-TransportRule -Identity 'Route to Gatepost')", '$1 -Confirm:$false'
    $ErrorActionPreference = 'Stop'
    $null = . ([scriptblock]::Create($code))
    foreach ($call in Get-StandInCall) { Assert-Equal $call.Outcome 'Done' $call.Cmdlet }
    $tenant = Get-StandInTenant
    Assert-Equal @($tenant.Inbound.Count, $tenant.Outbound.Count, $tenant.Rules.Count) @(1, 1, 2) 'two connectors, two rules'
    Assert-Equal $tenant.Rules[0]['SetHeaderValue'] 'value-of-secret_header' 'the secret'
    Assert-Equal $tenant.Rules[0]['State'] 'Disabled' 'stopped at the end'
}
