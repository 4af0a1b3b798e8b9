# A failure at any call of any script: it ends aloud, leaves nothing half known, and a second run comes to the same end.

# -Prepare: makes the tenant before the run under test.
function Test-EveryFault {
    param([string]$Script, [scriptblock]$Prepare, [hashtable]$With = @{}, [string]$Folder = (Get-Kit))
    Reset-StandIn
    & $Prepare
    Clear-StandInCall
    $null = Invoke-Good $Script -With (& $getWith $Script $With) -Folder $Folder
    $sequence = @(Get-StandInCall | ForEach-Object { @{ Cmdlet = $_.Cmdlet; Changes = $_.Changes } })
    $right = Get-StandInSnapshot -TenantId $kit.TenantId
    for ($i = 0; $i -lt $sequence.Count; $i++) {
        $moments = @('Before')
        if ($sequence[$i].Changes -or $sequence[$i].Cmdlet -eq 'Connect-ExchangeOnline') { $moments += 'After' }
        foreach ($when in $moments) {
            $where = "a fault $($when.ToLowerInvariant()) call $($i + 1), $($sequence[$i].Cmdlet)"
            Reset-StandIn
            & $Prepare
            Clear-StandInCall
            Set-StandInFault -Call ($i + 1) -When $when -Message 'A server side error has occurred, say the tests.'
            $run = Invoke-Script $Script -With (& $getWith $Script $With) -Folder $Folder
            Assert-That (@(Get-StandInFault)[0].Raised) "$where was raised"
            if ($sequence[$i].Cmdlet -eq 'Disconnect-ExchangeOnline') { Assert-That ($run.Warnings -match 'say the tests') "$where is told" }
            else {
                Assert-That ($run.Failed -match 'say the tests') "$where ends the script, found '$($run.Failed)'"
                Assert-That ($run.Failed -match 'while \w+ing') "$where is told with what was being done, found '$($run.Failed)'"
                Assert-Equal @(Get-StandInConnection).Count 0 "$where leaves no session"
            }
            Assert-That ($run.Text -notmatch "$secretValue|$loopValue") "$where shows no secret"
            $null = Invoke-Good $Script -With (& $getWith $Script $With) -Folder $Folder
            Assert-Equal (Get-StandInSnapshot -TenantId $kit.TenantId) $right "$where`: a second run comes to the same end"
            Assert-Equal @(Get-StandInCall | Where-Object { $_.Prompt }).Count 0 "$where`: nothing asks"
        }
    }
}
# Folders of exports are new for each run.
$getWith = { param($name, $with) $all = Get-Least $name; foreach ($key in $with.Keys) { $all[$key] = $with[$key] }; $all }

# An installed tenant without the time of an installation: the same snapshot every time.
$script:installed = $null
function Add-Ready {
    $tenant = Add-Contoso
    Add-ReadyObject $tenant
    Clear-StandInCall
}
function Add-ReadyObject {
    param($tenant)
    if ($null -eq $script:installed) {
        $null = Invoke-Good 'Install-GatepostConnector'
        # As after Confirm-GatepostConnector.
        $tenant.Outbound[0]['IsValidated'] = $true
        $script:installed = @{ Inbound = @($tenant.Inbound); Outbound = @($tenant.Outbound); Rules = @($tenant.Rules) }
        foreach ($kind in 'Inbound', 'Outbound', 'Rules') { $script:installed[$kind] = @($script:installed[$kind] | ForEach-Object { , (Copy-Stored $_) }) }
        return
    }
    foreach ($kind in 'Inbound', 'Outbound', 'Rules') { foreach ($one in $script:installed[$kind]) { [void]$tenant[$kind].Add((Copy-Stored $one)) } }
}
function Copy-Stored {
    param($Stored)
    $copy = [ordered]@{}
    foreach ($key in $Stored.Keys) { $copy[$key] = $Stored[$key]; if ($Stored[$key] -is [System.Collections.ArrayList]) { $copy[$key] = $Stored[$key].Clone() } }
    $copy
}

Test-Case 'fault: install, at every call' { Test-EveryFault 'Install-GatepostConnector' { $null = Add-Contoso } }
Test-Case 'fault: repair of one property of each object, at every call' {
    Test-EveryFault 'Repair-GatepostConnector' {
        Add-Ready
        Set-StandInProperty -Kind Inbound -Name 'From Gatepost' -Property RequireTls -Value $false
        Set-StandInProperty -Kind Outbound -Name 'To Gatepost' -Property TlsDomain -Value 'other.example'
        Set-StandInProperty -Kind Rules -Name 'Route to Gatepost' -Property StopRuleProcessing -Value $false
        Set-StandInProperty -Kind Rules -Name 'Back from Gatepost' -Property State -Value 'Disabled'
        Set-StandInProperty -Kind Rules -Name 'Back from Gatepost' -Property RemoveHeader -Value 'X-Other'
    }
}
Test-Case 'fault: rollout to everyone, at every call' { Test-EveryFault 'Set-GatepostRollout' { Add-Ready } -With @{ Stage = 'Everyone' } }
Test-Case 'fault: change of secrets, at every call' {
    $folder = New-Kit
    Set-KitSecret -Folder $folder -Secret 'NewS3cret0123456789' -Loop 'NewL00p0123456789' -OldSecret $secretValue -OldLoop $loopValue
    Test-EveryFault 'Update-GatepostSecret' { Add-Ready } -With @{ Stage = 'Both' } -Folder $folder
}
Test-Case 'fault: removal, at every call' {
    Test-EveryFault 'Remove-GatepostConnector' {
        Add-Ready
        Set-StandInProperty -Kind Rules -Name 'Route to Gatepost' -Property State -Value 'Enabled'
        (Get-StandInTenant).Arc = @('gatepost.example', 'fabrikam.com')
    } -With @{ ArcSealer = 'gatepost.example' }
}
Test-Case 'fault: validation, at every call' { Test-EveryFault 'Confirm-GatepostConnector' { Add-Ready } }
Test-Case 'fault: ARC sealer, Enhanced Filtering, preflight and export, at every call' {
    Test-EveryFault 'Set-GatepostArcSealer' { Add-Ready }
    Test-EveryFault 'Set-GatepostEnhancedFiltering' { Add-Ready }
    Test-EveryFault 'Test-GatepostPreflight' { Add-Ready }
    Test-EveryFault 'Export-GatepostState' { Add-Ready }
}
