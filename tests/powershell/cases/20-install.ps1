# Install-GatepostConnector: what it creates, and that it changes nothing that is right.

$mark = 'Managed by Gatepost (schema 1)'

# What each object holds after the first run (conventions: what each object needs).
$inboundWanted = [ordered]@{
    Enabled = 'True'; ConnectorType = 'OnPremises'; ConnectorSource = 'Default'; SenderDomains = 'smtp:*;1'; TlsSenderCertificateName = 'mail.contoso.com'; RequireTls = 'True'
    RestrictDomainsToCertificate = 'True'; RestrictDomainsToIPAddresses = 'False'; CloudServicesMailEnabled = 'True'; TreatMessagesAsInternal = 'False'; SenderIPAddresses = ''
    AssociatedAcceptedDomains = ''; TrustedOrganizations = ''; EFSkipLastIP = 'False'; EFSkipIPs = ''; EFUsers = ''
}
$outboundWanted = [ordered]@{
    Enabled = 'True'; TestMode = 'False'; ConnectorType = 'OnPremises'; ConnectorSource = 'Default'; IsTransportRuleScoped = 'True'; UseMXRecord = 'False'
    SmartHosts = 'mx1.gatepost.example,mx2.gatepost.example'; TlsSettings = 'DomainValidation'; TlsDomain = 'mx1.gatepost.example'; CloudServicesMailEnabled = 'True'
    RecipientDomains = ''; AllAcceptedDomains = 'False'; RouteAllMessagesViaOnPremises = 'False'; SenderRewritingEnabled = 'False'; IsValidated = 'False'
}
$routeWanted = [ordered]@{
    State = 'Disabled'; Mode = 'Audit'; Priority = '0'; FromScope = 'InOrganization'; SentToScope = ''; FromMemberOf = 'pilot@contoso.com'; RouteMessageOutboundConnector = 'To Gatepost'
    SetHeaderName = 'X-Contoso-Gate'; SetHeaderValue = $secretValue; ExceptIfHeaderContainsMessageHeader = 'X-Contoso-Loop'; ExceptIfHeaderContainsWords = $loopValue
    StopRuleProcessing = 'True'; RuleErrorAction = 'Ignore'; SetAuditSeverity = 'Low'; RemoveHeader = ''; ExceptIfMessageTypeMatches = ''; ExceptIfMessageSizeOver = ''
}
$backWanted = [ordered]@{
    State = 'Enabled'; Mode = 'Enforce'; Priority = '1'; HeaderContainsMessageHeader = 'X-Contoso-Loop'; HeaderContainsWords = $loopValue; RemoveHeader = 'X-Contoso-Loop'
    StopRuleProcessing = 'False'; RouteMessageOutboundConnector = ''; SetHeaderName = ''; FromScope = ''
}

# What differs between an object of the tenant and what it must hold.
function Compare-Wanted {
    param($Stored, $Wanted)
    foreach ($key in $Wanted.Keys) {
        $is = @($Stored[$key] | ForEach-Object { [string]$_ }) -join ','
        if ($is -cne $Wanted[$key]) { "$key is '$is', wanted '$($Wanted[$key])'" }
    }
}
function Assert-Installed {
    param($Tenant, [int]$First = 0)
    Assert-Equal @($Tenant.Inbound | ForEach-Object { $_.Name }) @('From Gatepost') 'the inbound connectors'
    Assert-Equal @($Tenant.Outbound | ForEach-Object { $_.Name }) @('To Gatepost') 'the outbound connectors'
    Assert-Equal (Compare-Wanted $Tenant.Inbound[0] $inboundWanted) @() 'the inbound connector'
    Assert-Equal (Compare-Wanted $Tenant.Outbound[0] $outboundWanted) @() 'the outbound connector'
    Assert-Equal @($Tenant.Rules | ForEach-Object { $_.Name }) @('Route to Gatepost', 'Back from Gatepost') 'the rules in their order'
    Assert-Equal (Compare-Wanted $Tenant.Rules[$First] $routeWanted) @() 'the routing rule'
    Assert-Equal (Compare-Wanted $Tenant.Rules[$First + 1] $backWanted) @() 'the clean-up rule'
    foreach ($one in @($Tenant.Inbound[0].Comment, $Tenant.Outbound[0].Comment, $Tenant.Rules[0].Comments, $Tenant.Rules[1].Comments)) { Assert-That ($one.StartsWith($mark)) "our mark, found '$one'" }
}

Test-Case 'install: the first run creates exactly the four objects, each parameter as it must be' {
    $tenant = Add-Contoso
    $run = Invoke-Good 'Install-GatepostConnector'
    Assert-Installed $tenant
    Assert-Equal (Get-Action $run) @('From Gatepost: Created', 'To Gatepost: Created', 'Route to Gatepost: Created', 'Back from Gatepost: Created') 'the results'
    Assert-Equal (Get-RightChange) @('New-InboundConnector', 'New-OutboundConnector', 'New-TransportRule', 'New-TransportRule') 'four changes, connectors before the rule that names one'
    Assert-Equal @($run.Results | ForEach-Object { @($_.PSObject.Properties | ForEach-Object { $_.Name }) -join ' ' } | Sort-Object -Unique) @('Type Name Action Changes Message') 'the shape of a result'
}

foreach ($unset in @('', $null)) {
    Test-Case "install: a second run changes nothing, with unset text as $(if ($null -eq $unset) { 'nothing' } else { 'empty text' })" -With @{ Text = $unset } {
        param($with)
        $tenant = Add-Contoso
        $tenant.UnsetText = $with.Text
        $null = Invoke-Good 'Install-GatepostConnector'
        $before = Get-StandInSnapshot
        Clear-StandInCall
        $run = Invoke-Good 'Install-GatepostConnector'
        Assert-Equal (Get-Change) @() 'no call that changes the tenant'
        Assert-Equal (Get-Action $run) @('From Gatepost: Unchanged', 'To Gatepost: Unchanged', 'Route to Gatepost: Unchanged', 'Back from Gatepost: Unchanged') 'the results'
        Assert-Equal (Get-StandInSnapshot) $before 'the tenant'
        Assert-Equal @(Get-ChildItem -LiteralPath $run.Folder) @() 'no export, for there was no change'
    }
}

Test-Case 'install: lists in another order and case are no drift, nor other names of the connector' {
    $tenant = Add-Installed
    Set-StandInProperty -Kind Outbound -Name 'To Gatepost' -Property SmartHosts -Value @('MX2.gatepost.example', 'mx1.GATEPOST.example')
    Set-StandInProperty -Kind Outbound -Name 'To Gatepost' -Property TlsDomain -Value 'MX1.Gatepost.Example'
    Set-StandInProperty -Kind Rules -Name 'Route to Gatepost' -Property RouteMessageOutboundConnector -Value $tenant.Outbound[0].Guid
    $null = Invoke-Good 'Install-GatepostConnector'
    Assert-Equal (Get-Change) @() 'no call that changes the tenant'
}

Test-Case 'install: drift is set back, also of a connector in test mode, which Exchange hides' {
    $null = Add-Installed
    $right = Get-StandInSnapshot
    Set-StandInProperty -Kind Outbound -Name 'To Gatepost' -Property TestMode -Value $true
    Set-StandInProperty -Kind Inbound -Name 'From Gatepost' -Property RequireTls -Value $false
    $null = Invoke-Good 'Install-GatepostConnector'
    Assert-Equal (Get-Change) @('Set-InboundConnector -Identity -RequireTls', 'Set-OutboundConnector -Identity -TestMode') 'one call for each, with what differs alone'
    Assert-Equal (Get-StandInSnapshot) $right 'the tenant is as it was'
}

Test-Case 'install: -WhatIf changes nothing and says what it would create' {
    $null = Add-Contoso
    $before = Get-StandInSnapshot
    $run = Invoke-Good 'Install-GatepostConnector' -Preview
    Assert-Equal (Get-Change) @() 'no call that changes the tenant'
    Assert-Equal (Get-StandInSnapshot) $before 'the tenant'
    Assert-Equal (Get-Action $run) @('From Gatepost: WouldCreate', 'To Gatepost: WouldCreate', 'Route to Gatepost: WouldCreate', 'Back from Gatepost: WouldCreate') 'the results'
    Assert-Equal @(Get-ChildItem -LiteralPath $run.Folder) @() 'no export'
}

Test-Case 'install: the state before the first change is exported, for its owner alone, and holds no object of ours' {
    $tenant = Add-Contoso
    $tenant.Arc = @('fabrikam.com')
    $run = Invoke-Good 'Install-GatepostConnector'
    $folders = @(Get-ChildItem -LiteralPath $run.Folder)
    Assert-Equal $folders.Count 1 'one folder'
    $names = @(Get-ChildItem -LiteralPath $folders[0].FullName | ForEach-Object { $_.Name } | Sort-Object)
    foreach ($name in 'AcceptedDomain.json', 'ArcConfig.json', 'InboundConnector.json', 'OrganizationConfig.json', 'OutboundConnector.json', 'TransportRule.json') { Assert-That ($names -contains $name) "$name is there, found $names" }
    Assert-Equal ([string]$folders[0].UnixFileMode) 'UserExecute, UserWrite, UserRead' 'the mode of the folder'
    foreach ($file in (Get-ChildItem -LiteralPath $folders[0].FullName)) { Assert-Equal ([string]$file.UnixFileMode) 'UserWrite, UserRead' "the mode of $($file.Name)" }
    $rules = [System.IO.File]::ReadAllText([System.IO.Path]::Combine($folders[0].FullName, 'TransportRule.json')).Trim()
    Assert-Equal $rules '[]' 'no rule before'
    $calls = @(Get-StandInCall | ForEach-Object { $_.Cmdlet })
    Assert-That ([array]::IndexOf($calls, 'Export-TransportRuleCollection') -lt [array]::IndexOf($calls, 'New-InboundConnector')) 'the export comes first'
}

Test-Case 'install: how far the rollout is stays as it is' {
    $null = Add-Installed
    Set-StandInProperty -Kind Rules -Name 'Route to Gatepost' -Property State -Value 'Enabled'
    Set-StandInProperty -Kind Rules -Name 'Route to Gatepost' -Property Mode -Value 'Enforce'
    Set-StandInProperty -Kind Rules -Name 'Route to Gatepost' -Property FromMemberOf -Value $null
    $null = Invoke-Good 'Install-GatepostConnector'
    Assert-Equal (Get-Change) @() 'no call that changes the tenant'
}

Test-Case 'install: other rules keep their order behind ours; a priority by parameter' {
    $tenant = Add-Contoso
    Set-StandInConnection -TenantId $kit.TenantId
    New-TransportRule -Name 'Disclaimer' -FromScope InOrganization -PrependSubject 'x' -ErrorAction Stop | Out-Null
    New-TransportRule -Name 'Encryption' -FromScope InOrganization -PrependSubject 'y' -ErrorAction Stop | Out-Null
    $null = Invoke-Good 'Install-GatepostConnector' -With @{ Priority = 1 }
    Assert-Equal @($tenant.Rules | ForEach-Object { "$($_.Priority) $($_.Name)" }) @('0 Disclaimer', '1 Route to Gatepost', '2 Back from Gatepost', '3 Encryption') 'the order'
    Clear-StandInCall
    $null = Invoke-Good 'Install-GatepostConnector' -With @{ Priority = 1 }
    Assert-Equal (Get-Change) @() 'a second run changes nothing'
}

Test-Case 'install: exceptions, error action and CloudServicesMailEnabled as the parameters say' {
    $tenant = Add-Contoso
    $null = Invoke-Good 'Install-GatepostConnector' -With @{ ExceptMessageType = 'Calendaring'; ExceptSizeOver = '22.5MB'; RuleErrorAction = 'Defer'; CloudServicesMailEnabled = 'False'; PilotGroup = '' }
    $route = $tenant.Rules[0]
    Assert-Equal @($route.ExceptIfMessageTypeMatches, $route.ExceptIfMessageSizeOver, $route.RuleErrorAction, $route.FromMemberOf) @('Calendaring', '22.5 MB (23,592,960 bytes)', 'Defer', '') 'the routing rule'
    Assert-Equal @($tenant.Inbound[0].CloudServicesMailEnabled, $tenant.Outbound[0].CloudServicesMailEnabled) @('False', 'False') 'both connectors'
    Clear-StandInCall
    $null = Invoke-Good 'Install-GatepostConnector' -With @{ ExceptMessageType = 'Calendaring'; ExceptSizeOver = '22.5MB'; RuleErrorAction = 'Defer'; CloudServicesMailEnabled = 'False'; PilotGroup = '' }
    Assert-Equal (Get-Change) @() 'a second run changes nothing'
}

foreach ($kind in 'Inbound', 'Outbound', 'Rules') {
    Test-Case "install: an object of our name that is not ours is refused before any change, and taken over with -Force ($kind)" -With $kind {
        param($kind)
        $tenant = Add-Contoso
        Set-StandInConnection -TenantId $kit.TenantId
        $name = @{ Inbound = 'From Gatepost'; Outbound = 'To Gatepost'; Rules = 'Route to Gatepost' }[$kind]
        if ($kind -eq 'Inbound') { New-InboundConnector -Name $name -SenderDomains 'fabrikam.com' -Comment 'theirs' -Enabled $false -ErrorAction Stop | Out-Null }
        if ($kind -eq 'Outbound') { New-OutboundConnector -Name $name -RecipientDomains 'fabrikam.com' -Enabled $false -ErrorAction Stop | Out-Null }
        if ($kind -eq 'Rules') { New-TransportRule -Name $name -FromScope InOrganization -PrependSubject 'x' -ErrorAction Stop | Out-Null }
        $before = Get-StandInSnapshot
        Clear-StandInCall
        $run = Invoke-Script 'Install-GatepostConnector'
        Assert-That ($run.Failed -match [regex]::Escape($name) -and $run.Failed -match '-Force') "a refusal that names the object and -Force, found '$($run.Failed)'"
        Assert-Equal (Get-Change) @() 'no call that changes the tenant'
        Assert-Equal (Get-StandInSnapshot) $before 'the tenant'
        $run = Invoke-Good 'Install-GatepostConnector' -With @{ Force = $true }
        Assert-That ((Get-Action $run) -contains "${name}: Updated") 'it was taken over'
        Assert-That (([string]$tenant[$kind][0]['Comment'] + [string]$tenant[$kind][0]['Comments']).StartsWith($mark)) 'it carries our mark'
        Clear-StandInCall
        $null = Invoke-Good 'Install-GatepostConnector'
        Assert-Equal (Get-Change) @() 'a further run without -Force changes nothing'
    }
}

# One that does the same under another name, made by hand, and the line that takes it over.
$twins = [ordered]@{
    Inbound = @('From Gatepost', { New-InboundConnector -Name "Bob's relay" -SenderDomains '*' -ConnectorType OnPremises -TlsSenderCertificateName 'MAIL.contoso.com' -ErrorAction Stop })
    Outbound = @('To Gatepost', { New-OutboundConnector -Name "Bob's relay" -ConnectorType OnPremises -UseMXRecord $false -SmartHosts 'MX2.gatepost.example.' -TestMode $true -ErrorAction Stop })
    Route = @('Route to Gatepost', { New-OutboundConnector -Name 'Elsewhere' -ErrorAction Stop; New-TransportRule -Name "Bob's relay" -RouteMessageOutboundConnector 'Elsewhere' -SetHeaderName 'x-contoso-gate' -SetHeaderValue $secretValue -ErrorAction Stop })
    CleanUp = @('Back from Gatepost', { New-TransportRule -Name "Bob's relay" -RemoveHeader 'x-contoso-loop' -Enabled $false -ErrorAction Stop })
}
foreach ($kind in $twins.Keys) {
    Test-Case "install: makes none beside one of another name that does the same, until that has the name and the mark ($kind)" -With $twins[$kind] {
        param($with)
        $name = $with[0]
        $tenant = Add-Contoso
        Set-StandInConnection -TenantId $kit.TenantId
        $null = & $with[1]
        $before = Get-StandInSnapshot
        Clear-StandInCall
        foreach ($preview in $true, $false) {
            $run = Invoke-Script 'Install-GatepostConnector' -Preview:$preview
            Assert-That ($run.Failed.Contains("Bob''s relay") -and $run.Failed.Contains("'$name'")) "a refusal that names both, found '$($run.Failed)'"
            Assert-Equal (Get-StandInSnapshot) $before 'the tenant'
        }
        Assert-Equal (Get-Change) @() 'no call that changes the tenant'
        # The line that it names; then it is ours.
        $line = [regex]::Match($run.Failed, "Set-\w+ -Identity .*$").Value
        $null = & ([scriptblock]::Create("$line -ErrorAction Stop"))
        $run = Invoke-Good 'Install-GatepostConnector'
        Assert-Equal @($tenant.Inbound.Count, $tenant.Rules.Count, @($tenant.Outbound | Where-Object { $_.Name -ne 'Elsewhere' }).Count) @(1, 2, 1) 'one of each'
        Assert-That ((Get-Action $run) -contains "${name}: Updated") "the one is set right, found $(Get-Action $run)"
    }
    Test-Case "install: -Force makes one beside it, with a warning ($kind)" -With $twins[$kind] {
        param($with)
        $null = Add-Contoso
        Set-StandInConnection -TenantId $kit.TenantId
        $null = & $with[1]
        $run = Invoke-Good 'Install-GatepostConnector' -With @{ Force = $true }
        Assert-That ((Get-Action $run) -contains "$($with[0]): Created") "it is made, found $(Get-Action $run)"
        Assert-That (@($run.Warnings | Where-Object { $_.Contains("Bob''s relay") }).Count -eq 1) "a warning, found $($run.Warnings)"
        $null = Invoke-Good 'Install-GatepostConnector'
    }
}
Test-Case 'install: of two that do the same it does not choose; a hybrid one, and one for another certificate or header, are not the same' {
    $null = Add-Contoso
    Set-StandInConnection -TenantId $kit.TenantId
    foreach ($name in 'One', 'Two') { New-InboundConnector -Name $name -SenderDomains '*' -ConnectorType OnPremises -TlsSenderCertificateName 'mail.contoso.com' -ErrorAction Stop | Out-Null }
    $run = Invoke-Script 'Install-GatepostConnector'
    Assert-That ($run.Failed -match "'One', 'Two'" -and $run.Failed -match 'Decide') "both named, found '$($run.Failed)'"
    Reset-StandIn
    $null = Add-Contoso
    Set-StandInConnection -TenantId $kit.TenantId
    New-InboundConnector -Name 'Inbound from 42' -SenderDomains '*' -ConnectorSource HybridWizard -TlsSenderCertificateName 'mail.contoso.com' -ErrorAction Stop | Out-Null
    New-InboundConnector -Name 'Other' -SenderDomains '*' -ConnectorType OnPremises -TlsSenderCertificateName 'smtp.contoso.com' -ErrorAction Stop | Out-Null
    New-InboundConnector -Name 'Wide' -SenderDomains '*' -ConnectorType OnPremises -TlsSenderCertificateName '*.contoso.com' -ErrorAction Stop | Out-Null
    New-TransportRule -Name 'Other' -RemoveHeader 'X-Other' -ErrorAction Stop | Out-Null
    New-TransportRule -Name 'Same header' -SetHeaderName 'X-Contoso-Gate' -SetHeaderValue 'another value' -ErrorAction Stop | Out-Null
    $run = Invoke-Good 'Install-GatepostConnector'
    Assert-Equal @($run.Warnings | ForEach-Object { [regex]::Match($_, "^The inbound connector '(\w+)'").Groups[1].Value } | Where-Object { $_ }) @('Wide') 'a warning of the one whose wildcard meets our name'
}

# What makes an outbound connector of our name carry mail; the refusal; what ends that.
$carries = [ordered]@{
    'a rule that leads to it' = @({ New-TransportRule -Name "Bob's archive" -RouteMessageOutboundConnector 'To Gatepost' -ErrorAction Stop }, "lead to it: 'Bob''s archive'.*Disable-TransportRule -Identity 'Bob''s archive'", { Disable-TransportRule -Identity "Bob's archive" -Confirm:$false -ErrorAction Stop })
    'a rule that leads to it by its other name' = @({ New-TransportRule -Name 'Archive' -RouteMessageOutboundConnector 'To Gatepost' -ErrorAction Stop; (Get-StandInTenant).Rules[0]['RouteMessageOutboundConnector'] = (Get-StandInTenant).Outbound[0]['Guid'] }, "lead to it: 'Archive'", { Disable-TransportRule -Identity 'Archive' -Confirm:$false -ErrorAction Stop })
    'a rule of our name that is not ours' = @({ New-TransportRule -Name 'Route to Gatepost' -RouteMessageOutboundConnector 'To Gatepost' -ErrorAction Stop }, "lead to it: 'Route to Gatepost'", { Disable-TransportRule -Identity 'Route to Gatepost' -Confirm:$false -ErrorAction Stop })
    'its recipient domains' = @({ Set-OutboundConnector -Identity 'To Gatepost' -IsTransportRuleScoped $false -RecipientDomains 'fabrikam.com' -Confirm:$false -ErrorAction Stop }, 'by RecipientDomains.*-OutboundConnectorName', { Set-OutboundConnector -Identity 'To Gatepost' -Enabled $false -Confirm:$false -ErrorAction Stop })
    'all accepted domains' = @({ Set-OutboundConnector -Identity 'To Gatepost' -IsTransportRuleScoped $false -ConnectorType OnPremises -AllAcceptedDomains $true -Confirm:$false -ErrorAction Stop }, 'by AllAcceptedDomains', { Set-OutboundConnector -Identity 'To Gatepost' -Enabled $false -Confirm:$false -ErrorAction Stop })
    'no domains, but not for rules alone' = @({ Set-OutboundConnector -Identity 'To Gatepost' -IsTransportRuleScoped $false -Confirm:$false -ErrorAction Stop }, 'by itself, .*IsTransportRuleScoped', { Set-OutboundConnector -Identity 'To Gatepost' -Enabled $false -Confirm:$false -ErrorAction Stop })
    'all accepted domains, for rules as well' = @({ Set-OutboundConnector -Identity 'To Gatepost' -ConnectorType OnPremises -AllAcceptedDomains $true -Confirm:$false -ErrorAction Stop }, 'by AllAcceptedDomains', { Set-OutboundConnector -Identity 'To Gatepost' -Enabled $false -Confirm:$false -ErrorAction Stop })
    'all mail, for rules as well' = @({ Set-OutboundConnector -Identity 'To Gatepost' -ConnectorType OnPremises -RouteAllMessagesViaOnPremises $true -Confirm:$false -ErrorAction Stop }, 'by RouteAllMessagesViaOnPremises', { Set-OutboundConnector -Identity 'To Gatepost' -Enabled $false -Confirm:$false -ErrorAction Stop })
    'all mail' = @({ Set-OutboundConnector -Identity 'To Gatepost' -IsTransportRuleScoped $false -ConnectorType OnPremises -RouteAllMessagesViaOnPremises $true -Confirm:$false -ErrorAction Stop }, 'by RouteAllMessagesViaOnPremises', { Set-OutboundConnector -Identity 'To Gatepost' -Enabled $false -Confirm:$false -ErrorAction Stop })
}
foreach ($kind in $carries.Keys) {
    Test-Case "install: -Force takes over no outbound connector that carries mail: $kind" -With $carries[$kind] {
        param($with)
        $tenant = Add-Contoso
        Set-StandInConnection -TenantId $kit.TenantId
        New-OutboundConnector -Name 'To Gatepost' -UseMXRecord $false -SmartHosts 'archive.fabrikam.com' -IsTransportRuleScoped $true -ErrorAction Stop | Out-Null
        $null = & $with[0]
        $before = Get-StandInSnapshot
        Clear-StandInCall
        foreach ($preview in $true, $false) {
            $run = Invoke-Script 'Install-GatepostConnector' -With @{ Force = $true } -Preview:$preview
            Assert-That ($run.Failed -match $with[1] -and $run.Failed -match 'Nothing was changed') "a refusal that says why and what to do, found '$($run.Failed)'"
        }
        Assert-Equal (Get-Change) @() 'no call that changes the tenant'
        Assert-Equal (Get-StandInSnapshot) $before 'the tenant'
        $null = & $with[2]
        $run = Invoke-Good 'Install-GatepostConnector' -With @{ Force = $true }
        Assert-That ((Get-Action $run) -contains 'To Gatepost: Updated') 'then it is taken over'
        Assert-Equal (@($tenant.Outbound[0].SmartHosts) -join ',') 'mx1.gatepost.example,mx2.gatepost.example' 'it leads to Gatepost'
    }
}
Test-Case 'install: -Force takes over an outbound connector that no rule in force leads to' {
    foreach ($with in @{ Mode = 'Audit' }, @{ ExpiryDate = [datetime]::UtcNow.AddDays(-1) }, @{ Enabled = $false }) {
        $tenant = Add-Contoso
        Set-StandInConnection -TenantId $kit.TenantId
        New-OutboundConnector -Name 'To Gatepost' -UseMXRecord $false -SmartHosts 'archive.fabrikam.com' -IsTransportRuleScoped $true -ErrorAction Stop | Out-Null
        New-TransportRule -Name 'Archive' -RouteMessageOutboundConnector 'To Gatepost' @with -ErrorAction Stop | Out-Null
        $run = Invoke-Good 'Install-GatepostConnector' -With @{ Force = $true }
        Assert-That ((Get-Action $run) -contains 'To Gatepost: Updated') "$($with.Keys): taken over"
        Reset-StandIn
    }
}
Test-Case 'install: -Force takes back an outbound connector that leads to Gatepost already, whoever uses it: nothing moves' {
    foreach ($row in @(@(@('MX1.gatepost.example.', '[mx2.gatepost.example]'), $true), @(@('mx1.gatepost.example', 'archive.fabrikam.com'), $false))) {
        foreach ($by in 'rule', 'domains') {
            $tenant = Add-Contoso
            Set-StandInConnection -TenantId $kit.TenantId
            New-OutboundConnector -Name 'To Gatepost' -ConnectorType OnPremises -UseMXRecord $false -SmartHosts 'old.fabrikam.com' -IsTransportRuleScoped ($by -eq 'rule') -Comment 'theirs' -ErrorAction Stop | Out-Null
            $tenant.Outbound[0]['SmartHosts'] = [System.Collections.ArrayList]@($row[0])
            if ($by -eq 'rule') { New-TransportRule -Name 'Bob' -RouteMessageOutboundConnector 'To Gatepost' -ErrorAction Stop | Out-Null }
            $run = Invoke-Script 'Install-GatepostConnector' -With @{ Force = $true }
            Assert-Equal ($run.Failed -eq '') $row[1] "$by, $($row[0]): found '$($run.Failed)'"
            Assert-Equal $tenant.Outbound[0].Comment.StartsWith($mark) $row[1] "$by, $($row[0]): the mark"
            Reset-StandIn
        }
    }
}
Test-Case 'install: -Force takes over no enabled inbound connector that knows another server; the line that it names ends that' {
    foreach ($alone in $false, $true) {
        $with = @{ Force = $true }
        if ($alone) { $with['SmartHosts'] = @() }
        foreach ($row in @(@('smtp.contoso.com', 'by the certificate name smtp\.contoso\.com'), @('', 'by no certificate'), @('MAIL.contoso.com', ''))) {
            $tenant = Add-Contoso
            Set-StandInConnection -TenantId $kit.TenantId
            New-InboundConnector -Name 'From Gatepost' -SenderDomains 'fabrikam.com' -ConnectorType OnPremises -Comment 'theirs' -ErrorAction Stop | Out-Null
            $tenant.Inbound[0]['TlsSenderCertificateName'] = $row[0]
            Clear-StandInCall
            $run = Invoke-Script 'Install-GatepostConnector' -With $with
            if ($row[1]) {
                Assert-That ($run.Failed -match "^Nothing was changed\..*$($row[1]).*-InboundConnectorName") "'$($row[0])': a refusal, found '$($run.Failed)'"
                Assert-Equal (Get-Change) @() "'$($row[0])': no call that changes the tenant"
                $null = & ([scriptblock]::Create([regex]::Match($run.Failed, 'Set-InboundConnector .*$').Value + ' -Confirm:$false -ErrorAction Stop'))
                $run = Invoke-Good 'Install-GatepostConnector' -With $with
            }
            Assert-Equal $run.Failed '' "'$($row[0])': no refusal"
            Assert-Equal @($tenant.Inbound[0].TlsSenderCertificateName, $tenant.Inbound[0].Comment.StartsWith($mark)) @($(if ($row[1]) { 'mail.contoso.com' } else { 'MAIL.contoso.com' }), 'True') "'$($row[0])': taken over"
            Reset-StandIn
        }
    }
}
Test-Case 'install: -Force takes over no rule of the clean-up rule''s name that does more than it; the line that it names ends that' {
    $tenant = Add-Contoso
    Set-StandInConnection -TenantId $kit.TenantId
    New-TransportRule -Name 'Back from Gatepost' -FromScope InOrganization -RemoveHeader 'X-Contoso-Loop' -ErrorAction Stop | Out-Null
    $rule = $tenant.Rules[0]
    $facts = (Get-Content -LiteralPath (Join-Path $PSScriptRoot '../cmdlets.json') -Raw | ConvertFrom-Json -AsHashtable).cmdlets['Set-TransportRule'].parameters
    # All that a rule can do; what goes with another action is none by itself.
    $acts = @($facts.Keys | Where-Object { $_ -eq 'StopRuleProcessing' -or ($plain -notcontains $_ -and $_ -notmatch $conditions -and 'ApplyHtmlDisclaimerLocation', 'ApplyHtmlDisclaimerFallbackAction', 'IncidentReportContent', 'SetHeaderValue', 'RouteMessageOutboundRequireTls' -notcontains $_) } | Sort-Object)
    Assert-That ($acts.Count -gt 25) "many actions, found $($acts.Count)"
    $before = Get-StandInSnapshot
    foreach ($key in $acts) {
        $was = $rule[$key]
        $rule[$key] = Get-Filling $facts[$key]
        $run = Invoke-Script 'Install-GatepostConnector' -With @{ Force = $true } -Preview
        Assert-That ($run.Failed -match "does more with mail than take X-Contoso-Loop off \($key\).*-CleanUpRuleName") "$key`: a refusal, found '$($run.Failed)'"
        $rule[$key] = $was
    }
    Assert-Equal (Get-StandInSnapshot) $before 'the tenant'
    # One that is not in force, and one with our loop value, which is ours.
    $rule['PrependSubject'] = 'x'
    foreach ($pair in @(@('State', 'Disabled'), @('Mode', 'Audit'), @('ExpiryDate', [datetime]::UtcNow.AddDays(-1)), @('HeaderContainsWords', [System.Collections.ArrayList]@($loopValue)))) {
        $was = $rule[$pair[0]]
        $rule[$pair[0]] = $pair[1]
        Assert-Equal (Invoke-Script 'Install-GatepostConnector' -With @{ Force = $true } -Preview).Failed '' "$($pair[0]): no refusal"
        $rule[$pair[0]] = $was
    }
    $run = Invoke-Script 'Install-GatepostConnector' -With @{ Force = $true }
    $null = & ([scriptblock]::Create([regex]::Match($run.Failed, 'Disable-TransportRule .*$').Value + ' -Confirm:$false -ErrorAction Stop'))
    $null = Invoke-Good 'Install-GatepostConnector' -With @{ Force = $true }
    Assert-That (@($tenant.Rules | Where-Object { $_['Name'] -eq 'Back from Gatepost' })[0].Comments.StartsWith($mark)) 'then it is taken over'
}
Test-Case 'install: a line to paste holds a name with curly quotes, which end a literal as well' {
    foreach ($kind in 'twin', 'user') {
        Reset-StandIn
        $tenant = Add-Contoso
        Set-StandInConnection -TenantId $kit.TenantId
        $name = "x$([char]0x2019); throw $([char]0x201A)y"
        New-OutboundConnector -Name 'To Gatepost' -IsTransportRuleScoped $true -Comment $(if ($kind -eq 'twin') { $mark } else { 'theirs' }) -ErrorAction Stop | Out-Null
        if ($kind -eq 'twin') { New-TransportRule -Name $name -RemoveHeader 'X-Contoso-Loop' -ErrorAction Stop | Out-Null } else { New-TransportRule -Name $name -RouteMessageOutboundConnector 'To Gatepost' -ErrorAction Stop | Out-Null }
        $run = Invoke-Script 'Install-GatepostConnector' -With @{ Force = ($kind -eq 'user') }
        $line = [regex]::Match($run.Failed, $(if ($kind -eq 'twin') { 'Set-TransportRule .*$' } else { 'Disable-TransportRule [^)]*' })).Value
        $null = & ([scriptblock]::Create("$line -Confirm:`$false -ErrorAction Stop"))
        Assert-Equal $tenant.Rules[0].$(if ($kind -eq 'twin') { 'Name' } else { 'State' }) $(if ($kind -eq 'twin') { 'Back from Gatepost' } else { 'Disabled' }) "$kind`: the line '$line' did its work"
    }
}

Test-Case 'install: our own connector whose comment somebody changed is taken back with -Force while our rule sends mail by it' {
    $tenant = Add-Installed
    $tenant.Outbound[0]['Comment'] = 'theirs'
    foreach ($comment in $tenant.Rules[0]['Comments'], 'theirs as well') {
        foreach ($pair in @(@('State', 'Enabled'), @('Mode', 'Enforce'), @('Comments', $comment))) { $tenant.Rules[0][$pair[0]] = $pair[1] }
        $tenant.Outbound[0]['Comment'] = 'theirs'
        $null = Invoke-Good 'Install-GatepostConnector' -With @{ Force = $true }
        Assert-That ($tenant.Outbound[0].Comment.StartsWith($mark)) 'the mark is back'
        Assert-Equal @($tenant.Rules[0].State, $tenant.Rules[0].Mode) @('Enabled', 'Enforce') 'mail goes on'
    }
    # Somebody has led our clean-up rule there as well: that goes.
    $tenant.Outbound[0]['Comment'] = 'theirs'
    $tenant.Rules[1]['RouteMessageOutboundConnector'] = 'To Gatepost'
    $null = Invoke-Good 'Install-GatepostConnector' -With @{ Force = $true }
    Assert-Equal $tenant.Rules[1].RouteMessageOutboundConnector '' 'the clean-up rule leads nowhere'
}

Test-Case 'install: a hybrid connector whose wildcard the certificate fits is warned of, and stays' {
    $null = Add-Contoso
    Set-StandInConnection -TenantId $kit.TenantId
    foreach ($row in @(@('42', '*.contoso.com', $true), @('43', '*.contoso.com', $false), @('44', '*.eu.contoso.com', $true), @('45', 'smtp.contoso.com', $true))) { New-InboundConnector -Name "Inbound from $($row[0])" -SenderDomains '*' -ConnectorSource HybridWizard -TlsSenderCertificateName $row[1] -Enabled $row[2] -ErrorAction Stop | Out-Null }
    $before = @(Get-StandInSnapshot)
    $run = Invoke-Good 'Install-GatepostConnector'
    $told = @($run.Warnings | Where-Object { $_ -match 'hybrid' })
    Assert-That ($told.Count -eq 1 -and $told[0] -match "'Inbound from 42'.*outside that wildcard, in another accepted domain") "one warning, found $($run.Warnings)"
    Assert-Equal @(Get-StandInSnapshot | Where-Object { $_ -match 'HybridWizard' }) @($before | Where-Object { $_ -match 'HybridWizard' }) 'they are as they were'
}

Test-Case 'install: a hybrid connector for the very name in the certificate is warned of, and stays' {
    $null = Add-Contoso
    Set-StandInConnection -TenantId $kit.TenantId
    foreach ($row in @(@('42', 'MAIL.contoso.com', $true), @('43', 'mail.contoso.com', $false))) { New-InboundConnector -Name "Inbound from $($row[0])" -SenderDomains '*' -ConnectorSource HybridWizard -TlsSenderCertificateName $row[1] -Enabled $row[2] -ErrorAction Stop | Out-Null }
    $run = Invoke-Good 'Install-GatepostConnector'
    $told = @($run.Warnings | Where-Object { $_ -match 'hybrid' })
    Assert-That ($told.Count -eq 1 -and $told[0] -match "'Inbound from 42'.*a certificate with a name of its own") "one warning, found $($run.Warnings)"
}

Test-Case 'install: a hybrid connector of our name is never touched, also with -Force' {
    $null = Add-Contoso
    Set-StandInConnection -TenantId $kit.TenantId
    New-InboundConnector -Name 'From Gatepost' -SenderDomains '*' -ConnectorSource HybridWizard -ErrorAction Stop | Out-Null
    $before = Get-StandInSnapshot
    Clear-StandInCall
    $run = Invoke-Script 'Install-GatepostConnector' -With @{ Force = $true }
    Assert-That ($run.Failed -match 'hybrid') "a refusal, found '$($run.Failed)'"
    Assert-Equal (Get-Change) @() 'no call that changes the tenant'
    Assert-Equal (Get-StandInSnapshot) $before 'the tenant'
}

Test-Case 'install: a certificate name outside the accepted domains is refused before any change, one below is a warning' {
    $null = Add-Contoso
    $run = Invoke-Script 'Install-GatepostConnector' -With @{ TlsSenderCertificateName = 'mail.fabrikam.com' }
    Assert-That ($run.Failed -match 'mail\.fabrikam\.com' -and $run.Failed -match 'accepted domain') "a refusal, found '$($run.Failed)'"
    Assert-Equal (Get-Change) @() 'no call that changes the tenant'
    $run = Invoke-Good 'Install-GatepostConnector' -With @{ TlsSenderCertificateName = 'smtp.contoso.com' }
    Assert-That (@($run.Warnings | Where-Object { $_ -match 'smtp\.contoso\.com' }).Count -eq 1) "a warning, found $($run.Warnings)"
}

Test-Case 'install: a tenant that was never opened up is refused before any change' {
    $tenant = Add-Contoso
    $tenant.OrganizationConfig['IsDehydrated'] = $true
    $run = Invoke-Script 'Install-GatepostConnector'
    Assert-That ($run.Failed -match 'Enable-OrganizationCustomization') "a refusal, found '$($run.Failed)'"
    Assert-Equal (Get-Change) @() 'no call that changes the tenant'
}

Test-Case 'install: a template that was not rendered names the parameter and render; with all parameters it works alone' {
    $tenant = Add-Contoso
    $folder = New-WorkFolder
    [System.IO.File]::WriteAllBytes([System.IO.Path]::Combine($folder, 'Install-GatepostConnector.ps1'), $files['Install-GatepostConnector.ps1'])
    $run = Invoke-Script 'Install-GatepostConnector' -Folder $folder
    Assert-That ($run.Failed -match '-SmartHosts' -and $run.Failed -match 'gatepost connector render') "what to do, found '$($run.Failed)'"
    Assert-Equal @(Get-StandInCall).Count 0 'nothing was called'
    Set-KitSecret -Folder $folder
    $with = @{}
    foreach ($key in $kit.Keys) { $with[$key] = $kit[$key] }
    $null = Invoke-Good 'Install-GatepostConnector' -Folder $folder -With $with
    Assert-Installed $tenant
}

Test-Case 'install: without -ExportFolder the state goes beside the script' {
    $null = Add-Contoso
    $folder = New-Kit
    $null = & ([System.IO.Path]::Combine($folder, 'Install-GatepostConnector.ps1'))
    Assert-Equal @(Get-ChildItem -LiteralPath $folder -Directory).Count 1 'one folder beside the script'
}

Test-Case 'install: a pilot group that is not there is refused before the first change, by -WhatIf too; a rule that is there needs none' {
    $null = Add-Contoso
    foreach ($preview in $true, $false) {
        $run = Invoke-Script 'Install-GatepostConnector' -With @{ PilotGroup = 'pilto@contoso.com' } -Preview:$preview
        Assert-That ($run.Failed -match "pilto@contoso\.com' is no group") "a refusal, found '$($run.Failed)'"
    }
    Assert-Equal (Get-Change) @() 'nothing was changed'
    $null = Invoke-Good 'Install-GatepostConnector'
    $null = Invoke-Good 'Install-GatepostConnector' -With @{ PilotGroup = 'pilto@contoso.com' }
}

Test-Case 'install: a secrets file that cannot be read is told as that' {
    $null = Add-Contoso
    $folder = New-Kit
    $path = [System.IO.Path]::Combine($folder, 'gatepost-secrets.json')
    $held = [System.IO.File]::Open($path, 'Open', 'ReadWrite', 'None')
    try { $run = Invoke-Script 'Install-GatepostConnector' -Folder $folder } finally { $held.Dispose() }
    Assert-That ($run.Failed -match 'cannot be read: \S') "the reason, found '$($run.Failed)'"
}

Test-Case 'install: a foreign routing rule that is taken over begins as a new one does: disabled, in Audit, for the pilot group' {
    $tenant = Add-Contoso
    Set-StandInConnection -TenantId $kit.TenantId
    New-TransportRule -Name 'Route to Gatepost' -SubjectContainsWords 'x' -FromMemberOf 'second@contoso.com' -ErrorAction Stop | Out-Null
    $run = Invoke-Good 'Install-GatepostConnector' -With @{ Force = $true } -Preview
    $told = @($run.Results | Where-Object { $_.Name -eq 'Route to Gatepost' })[0]
    Assert-That (($told.Changes -join ' ') -match "State: 'Enabled' -> 'Disabled'" -and $told.Message -match '^disabled: it sends nothing') "-WhatIf says so, found $($told.Changes), $($told.Message)"
    Clear-StandInCall
    $null = Invoke-Good 'Install-GatepostConnector' -With @{ Force = $true }
    $rule = $tenant.Rules[0]
    Assert-Equal @($rule.State, $rule.Mode, (@($rule.FromMemberOf) -join ','), $rule.RouteMessageOutboundConnector) @('Disabled', 'Audit', 'pilot@contoso.com', 'To Gatepost') 'the rule'
    $calls = @(Get-RightChange)
    Assert-That ([array]::IndexOf($calls, 'Disable-TransportRule') -ge 0 -and [array]::IndexOf($calls, 'Disable-TransportRule') -lt [array]::IndexOf($calls, 'Set-TransportRule')) "it is disabled first, found $calls"
    # From then on it is ours: the rollout is not touched.
    Set-StandInProperty -Kind Rules -Name 'Route to Gatepost' -Property State -Value 'Enabled'
    Clear-StandInCall
    $null = Invoke-Good 'Install-GatepostConnector' -With @{ Force = $true }
    Assert-Equal (Get-Change) @() 'a second run changes nothing'
}

Test-Case 'install: a routing rule with the tenant''s secret whose comment somebody changed is ours: -Force gives it the mark and leaves the rollout' {
    $tenant = Add-Installed
    $rule = $tenant.Rules[0]
    $rule['Comments'] = "theirs, $($loopValue.Substring(0, 20))"
    $rule['State'] = 'Enabled'
    $rule['Mode'] = 'Enforce'
    $rule['FromMemberOf'] = $null
    $run = Invoke-Good 'Install-GatepostConnector' -With @{ Force = $true }
    Assert-Equal (Get-Change) @('Set-TransportRule -Comments -Identity') 'the mark alone'
    Assert-That ($run.Text -notmatch $loopValue.Substring(0, 20)) 'what the comment said is not shown'
}
