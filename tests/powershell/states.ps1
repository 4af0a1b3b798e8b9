# Part of round.ps1: the tenant as it is after Install, in many states, each mended by the lines of diff as they are printed.

$tenant = Get-StandInTenant
[void](New-OutboundConnector -Name 'Elsewhere' -ConnectorType OnPremises -UseMXRecord $false -SmartHosts 'other.fabrikam.com' -IsTransportRuleScoped $true -Confirm:$false)
$names = [ordered]@{ Inbound = 'From Gatepost'; Outbound = 'To Gatepost'; Route = 'Route to Gatepost'; CleanUp = 'Back from Gatepost' }
$stray = @{ Inbound = @('RequireTls', $false); Outbound = @('TestMode', $true); Route = @('RouteMessageOutboundConnector', 'Elsewhere'); CleanUp = @('StopRuleProcessing', $true) }

function Copy-Object {
    param($Stored)
    $copy = [ordered]@{}
    foreach ($key in $Stored.Keys) {
        $copy[$key] = $Stored[$key]
        if ($Stored[$key] -is [System.Collections.IList]) { $copy[$key] = New-Object -TypeName System.Collections.ArrayList -ArgumentList @(, @($Stored[$key])) }
    }
    $copy
}

$pristine = @{}
foreach ($kind in 'Inbound', 'Outbound', 'Rules') { $pristine[$kind] = @($tenant[$kind] | ForEach-Object { Copy-Object -Stored $_ }) }

# The exports that diff compares, by the commands of docs/connectors.md: round.ps1 goes by Export-GatepostState.ps1, which takes longer.
function Get-Told {
    $folder = Join-Path $Work ([guid]::NewGuid().ToString('N'))
    [void][System.IO.Directory]::CreateDirectory($folder)
    $all = @{ InboundConnector = @(Get-InboundConnector); OutboundConnector = @(Get-OutboundConnector -IncludeTestModeConnectors $true); TransportRule = @(Get-TransportRule); AcceptedDomain = @(Get-AcceptedDomain) }
    foreach ($key in $all.Keys) { [System.IO.File]::WriteAllText((Join-Path $folder "$key.json"), (ConvertTo-Json -InputObject $all[$key] -Depth 6)) }
    $json = & $Gatepost connector diff --config $Config --tenant contoso --exports $folder --json 2>$null
    [System.IO.Directory]::Delete($folder, $true)
    @{ Status = $LASTEXITCODE; Drift = @((($json -join '') | ConvertFrom-Json).drift) }
}

# -State: of each object A(bsent), R(ight), D(rifted) or H (made by hand under another name). -Sends: mail of everyone goes through the rule, and the connector
# was never validated. -Foreign: a rule of somebody else's stands first and ends the processing.
function Set-State {
    param([hashtable]$State, [bool]$Sends, [bool]$Foreign)
    foreach ($kind in 'Inbound', 'Outbound', 'Rules') {
        $tenant[$kind].Clear()
        foreach ($one in $pristine[$kind]) { [void]$tenant[$kind].Add((Copy-Object -Stored $one)) }
    }
    # Each state is a time of its own: the service counts the queries of five minutes.
    $tenant.TraceQueries = @()
    $tenant.Traces.Clear()
    if ($Sends) { foreach ($pair in @(@('State', 'Enabled'), @('Mode', 'Enforce'), @('FromMemberOf', $null))) { Set-StandInProperty -Kind Rules -Name $names['Route'] -Property $pair[0] -Value $pair[1] } }
    # A connector that a rule names cannot be removed: the rule was turned elsewhere before.
    if ($State['Outbound'] -eq 'A') { Set-StandInProperty -Kind Rules -Name $names['Route'] -Property 'RouteMessageOutboundConnector' -Value 'Elsewhere' }
    foreach ($object in $names.Keys) {
        $kind = $object
        $comment = 'Comment'
        if ('Route', 'CleanUp' -contains $object) { $kind, $comment = 'Rules', 'Comments' }
        if ($State[$object] -eq 'D' -or $State[$object] -eq 'H') { Set-StandInProperty -Kind $kind -Name $names[$object] -Property $stray[$object][0] -Value $stray[$object][1] }
        if ($State[$object] -eq 'H') {
            Set-StandInProperty -Kind $kind -Name $names[$object] -Property $comment -Value 'made by hand'
            if ($object -eq 'Outbound') { Set-OutboundConnector -Identity $names[$object] -Name 'Smart host Outbound' -Confirm:$false }
            elseif ($object -eq 'Inbound') { Set-InboundConnector -Identity $names[$object] -Name 'Smart host Inbound' -Confirm:$false }
            else { Set-TransportRule -Identity $names[$object] -Name "Smart host $object" -Confirm:$false }
        }
        if ($State[$object] -eq 'A') {
            $gone = @($tenant[$kind] | Where-Object { $_['Name'] -eq $names[$object] })
            foreach ($one in $gone) { $tenant[$kind].Remove($one) }
        }
    }
    for ($i = 0; $i -lt $tenant.Rules.Count; $i++) { $tenant.Rules[$i]['Priority'] = $i }
    if ($Foreign) { [void](New-TransportRule -Name 'Theirs' -Priority 0 -StopRuleProcessing $true -PrependSubject 'x' -Confirm:$false) }
}

$letters = 'A', 'R', 'D', 'H'
for ($number = 0; $number -lt 256; $number++) {
    $digits = @(($number % 4), ([math]::Floor($number / 4) % 4), ([math]::Floor($number / 16) % 4), [math]::Floor($number / 64))
    # Any three decide the fourth: each combination of three objects is there once.
    if ($States -eq 'Covering' -and ($digits[0] + $digits[1] + $digits[2] + $digits[3]) % 4 -ne 0) { continue }
    $state = @{}
    $place = 0
    foreach ($object in $names.Keys) { $state[$object] = $letters[$digits[$place]]; $place++ }
    $sends = (($digits[0] + 2 * $digits[1] + $digits[3]) % 3) -ne 0
    $foreign = (($digits[0] + $digits[2]) % 2) -eq 0
    $what = "$(@($names.Keys | ForEach-Object { "$_ $($state[$_])" }) -join ', ')$(if ($sends) { ', sends' })$(if ($foreign) { ', behind a foreign rule' })"
    Set-State -State $state -Sends $sends -Foreign $foreign
    $said = Get-Told
    $lines = @()
    foreach ($one in $said.Drift) {
        if (-not $one.mend.PSObject.Properties['line']) { Confirm-Step $false "$what`: no line for $($one.name) $($one.property)"; continue }
        $lines += $one.mend.line
        try { [void](Invoke-Expression $one.mend.line 3>$null) } catch { Confirm-Step $false "$what`: the line fails: $($one.mend.line)`: $_`: after $($lines -join ' | ')" }
    }
    $left = Get-Told
    $clean = $left.Status -eq 0 -and $left.Drift.Count -eq 0
    $found = @($tenant.Inbound.Count, ($tenant.Outbound.Count - 1), ($tenant.Rules.Count - [int]$foreign)) -join ' '
    Confirm-Step ($clean -and $found -eq '1 1 2') "$what`: left: $(Show-Drift $left) ($found): after $($lines -join ' | ')"
}
