# A folder rendered for applications alone: no host to connect to, so the inbound connector is all.

$aloneValues = @{
    TenantId = $kit.TenantId; SmartHosts = @(); TlsDomain = ''; TlsSenderCertificateName = '*.contoso.com'; AcceptedDomains = @('contoso.com', 'contoso.onmicrosoft.com')
    CloudServicesMailEnabled = 'True'; SecretHeaderName = ''; LoopHeaderName = ''; PilotGroup = ''; ExchangeEnvironmentName = 'O365Default'
}
$aloneWanted = [ordered]@{}
foreach ($key in $inboundWanted.Keys) { $aloneWanted[$key] = $inboundWanted[$key] }
$aloneWanted['TlsSenderCertificateName'] = '*.contoso.com'

# As render leaves it: the secrets file tells whose folder it is, and no value.
function New-AloneKit {
    $folder = New-Kit -Values $aloneValues
    [System.IO.File]::WriteAllText([System.IO.Path]::Combine($folder, 'gatepost-secrets.json'), (ConvertTo-Json -InputObject @{ TenantId = $kit.TenantId }))
    $folder
}

Test-Case 'inbound alone: installed, a second run changes nothing, drift is mended, and it is removed' {
    $folder = New-AloneKit
    $tenant = Add-Contoso
    $before = Get-StandInSnapshot
    $null = Invoke-Good 'Test-GatepostPreflight' -Folder $folder
    $run = Invoke-Good 'Install-GatepostConnector' -Folder $folder -Preview
    Assert-Equal (Get-Change) @() '-WhatIf changes nothing'
    Assert-Equal (Get-Action $run) @('From Gatepost: WouldCreate') 'and says what it would make'
    $run = Invoke-Good 'Install-GatepostConnector' -Folder $folder
    Assert-Equal (Get-RightChange) @('New-InboundConnector') 'one change'
    Assert-Equal (Get-Action $run) @('From Gatepost: Created') 'the results'
    Assert-Equal (Compare-Wanted $tenant.Inbound[0] $aloneWanted) @() 'the inbound connector'
    Assert-Equal @($tenant.Outbound).Count 0 'no outbound connector'
    Assert-Equal @($tenant.Rules).Count 0 'no rule'
    Assert-That ($run.Text -match 'no listener for Exchange') 'it says what it leaves out'
    Clear-StandInCall
    $run = Invoke-Good 'Install-GatepostConnector' -Folder $folder
    Assert-Equal (Get-Change) @() 'a second run changes nothing'
    Assert-Equal (Get-Action $run) @('From Gatepost: Unchanged') 'and says so'
    $run = Invoke-Good 'Repair-GatepostConnector' -Folder $folder
    Assert-Equal (Get-Change) @() 'nothing is to be mended'
    Set-StandInProperty -Kind Inbound -Name 'From Gatepost' -Property RequireTls -Value $false
    $run = Invoke-Good 'Repair-GatepostConnector' -Folder $folder
    Assert-Equal (Get-Change) @('Set-InboundConnector -Identity -RequireTls') 'what drifted is set, alone'
    Assert-Equal (Compare-Wanted $tenant.Inbound[0] $aloneWanted) @() 'the inbound connector'
    Clear-StandInCall
    $run = Invoke-Good 'Remove-GatepostConnector' -Folder $folder -With @{ WaitMinutes = 0 }
    Assert-Equal (Get-RightChange) @('Remove-InboundConnector') 'one is removed'
    Assert-Equal (Get-StandInSnapshot) $before 'the tenant is as it was'
    $run = Invoke-Good 'Repair-GatepostConnector' -Folder $folder
    Assert-Equal (Get-Action $run) @('From Gatepost: Missing') 'a missing one is told'
}

Test-Case 'inbound alone: objects of other kinds and other names are neither read as ours nor refused' {
    $folder = New-AloneKit
    $null = Add-Contoso
    Set-StandInConnection -TenantId $kit.TenantId
    New-OutboundConnector -Name 'To Gatepost' -ErrorAction Stop | Out-Null
    New-TransportRule -Name 'Route to Gatepost' -PrependSubject 'x' -ErrorAction Stop | Out-Null
    Clear-StandInCall
    $null = Invoke-Good 'Test-GatepostPreflight' -Folder $folder
    $run = Invoke-Good 'Install-GatepostConnector' -Folder $folder
    Assert-Equal (Get-RightChange) @('New-InboundConnector') 'one change'
    $tenant = Get-StandInTenant
    Assert-Equal @($tenant.Outbound).Count 1 'the outbound connector stays'
    Assert-Equal @($tenant.Rules).Count 1 'the rule stays'
    $tenant.Inbound[0]['Comment'] = 'mine'
    $run = Invoke-Script 'Install-GatepostConnector' -Folder $folder
    Assert-That ($run.Failed -match 'not Gatepost') "one of our name that is not ours is refused, found '$($run.Failed)'"
}

Test-Case 'inbound alone: confirm has nothing to validate and finds a mail of an application' {
    $folder = New-AloneKit
    $null = Add-Contoso
    $null = Invoke-Good 'Install-GatepostConnector' -Folder $folder
    Clear-StandInCall
    $run = Invoke-Script 'Confirm-GatepostConnector' -Folder $folder -With @{ Recipient = 'pilot@contoso.com'; WaitMinutes = 0 }
    Assert-That ($run.Failed -match 'applications alone.*-MessageId') "how to look, found '$($run.Failed)'"
    Add-StandInTrace -TenantId $kit.TenantId -Sender 'erp@contoso.com' -Recipient 'b@contoso.com' -MessageId '<erp@contoso.com>' -Event @(@{ Event = 'Deliver'; Detail = 'Delivered' })
    $run = Invoke-Good 'Confirm-GatepostConnector' -Folder $folder -With @{ MessageId = '<erp@contoso.com>'; WaitMinutes = 0 }
    $found = @($run.Results | Where-Object { $_.Type -eq 'message' })
    Assert-Equal @($found | ForEach-Object { $_.Action }) @('Delivered') 'the mail'
    Assert-That ($found[0].Message -match "Mail of an application shows in 'gatepost trace'") "where to look, found '$($found[0].Message)'"
    Assert-Equal (Get-Change) @() 'looking changes nothing'
}

Test-Case 'install: a header name is any that gatepost.toml takes (RFC 5322 field-name), and no other' {
    foreach ($name in 'X-Contoso-Gate', 'X_Contoso.Gate', "X!#`$%&'*+-.^_``{|}~", ('x' * 76)) {
        Reset-StandIn
        $tenant = Add-Contoso
        $null = Invoke-Good 'Install-GatepostConnector' -With @{ SecretHeaderName = $name }
        Assert-Equal $tenant.Rules[0].SetHeaderName $name 'the field that the rule sets'
        Clear-StandInCall
        foreach ($script in 'Install-GatepostConnector', 'Repair-GatepostConnector') { $null = Invoke-Good $script -With @{ SecretHeaderName = $name } }
        Assert-Equal (Get-Change) @() 'a second run changes nothing'
    }
    foreach ($name in 'X Gate', 'X-Gate:', "X-Gate`n", ('X-G' + [char]0x00E4 + 'te'), ('X-' + [char]0x212A), ('x' * 77), '') {
        foreach ($script in 'Install-GatepostConnector', 'Repair-GatepostConnector', 'Update-GatepostSecret') {
            $with = @{ SecretHeaderName = $name }
            if ($script -eq 'Update-GatepostSecret') { $with['Stage'] = 'Both' }
            $run = Invoke-Script $script -With $with
            Assert-That ($run.Failed -match 'SecretHeaderName') "$script refuses '$name', found '$($run.Failed)'"
        }
    }
}
