# Confirm-GatepostConnector, Test-GatepostPreflight, Export-GatepostState, and secrets in what is written.

function New-Event { param([string]$Event, [string]$Detail) @{ Event = $Event; Detail = $Detail } }
$quick = @{ Recipient = 'pilot@contoso.com'; WaitMinutes = 0 }
$once = @((New-Event 'Receive' 'Message received'), (New-Event 'Transport rule' "Transport rule: 'Back from Gatepost'"), (New-Event 'Deliver' 'Delivered'))

Test-Case 'confirm: a good validation is stamped, in UTC, and the test mail is found once; a second run sends none' {
    Add-Ready
    (Get-StandInTenant).Outbound[0]['IsValidated'] = $false
    Set-StandInValidation -Event $once
    $run = Invoke-Good 'Confirm-GatepostConnector' -With $quick -Preview
    Assert-Equal (Get-Change) @() '-WhatIf sends no mail and changes nothing'
    $run = Invoke-Good 'Confirm-GatepostConnector' -With $quick
    $outbound = (Get-StandInTenant).Outbound[0]
    Assert-Equal (Get-RightChange) @('Validate-OutboundConnector', 'Set-OutboundConnector') 'validated, then stamped'
    Assert-Equal $outbound.IsValidated 'True' 'the stamp'
    $age = [math]::Abs(([datetime]::UtcNow - $outbound.LastValidationTimestamp).TotalMinutes)
    Assert-That ($age -lt 10) "the time is UTC, found $($outbound.LastValidationTimestamp), $age minutes away"
    Assert-That (@($run.Results | Where-Object { $_.Type -eq 'message' -and $_.Action -eq 'Delivered' }).Count -eq 1) "the test mail, found $(Get-Action $run)"
    Clear-StandInCall
    $run = Invoke-Good 'Confirm-GatepostConnector' -With $quick
    Assert-Equal (Get-Change) @() 'a second run sends no mail'
    $null = Invoke-Good 'Confirm-GatepostConnector' -With ($quick + @{ Again = $true })
    Assert-Equal @(Get-StandInCall -Name 'Validate-OutboundConnector').Count 1 '-Again does'
}

Test-Case 'confirm: a test mail that the trace shows as failed proves nothing; -Again that fails takes the mark off' {
    Add-Ready
    $outbound = (Get-StandInTenant).Outbound[0]
    $outbound['IsValidated'] = $false
    Set-StandInValidation -TraceStatus 'Failed'
    $run = Invoke-Script 'Confirm-GatepostConnector' -With $quick
    Assert-That ($run.Failed -match 'is not validated: the test mail .* in the trace as Failed') "a failure, found '$($run.Failed)'"
    Assert-Equal @($outbound.IsValidated, (@(Get-RightChange) -join ',')) @('False', 'Validate-OutboundConnector') 'no stamp'
    Assert-Equal @($run.Results | ForEach-Object { "$($_.Type) $($_.Action)" }) @('outbound connector Failed', 'message Failed') 'the results'
    # Mended and tried again at once: the mail of before is none of this run.
    Set-StandInValidation -Event $once
    $run = Invoke-Good 'Confirm-GatepostConnector' -With $quick
    Assert-Equal $outbound.IsValidated 'True' 'validated now'
    Assert-Equal @($run.Results | Where-Object { $_.Type -eq 'message' } | ForEach-Object { $_.Action }) @('Delivered') 'one mail'
    Set-StandInValidation -Connect $false -Text '450 4.4.316 Connection refused'
    $run = Invoke-Script 'Confirm-GatepostConnector' -With ($quick + @{ Again = $true })
    Assert-That ($run.Failed -match '4\.4\.316') "a failure, found '$($run.Failed)'"
    Assert-Equal $outbound.IsValidated 'False' 'the mark is off'
    Assert-Equal @($run.Results)[0].Changes @("IsValidated: 'True' -> 'False'") 'and told'
}

foreach ($bad in @(@{ Connect = $false }, @{ Send = $false })) {
    Test-Case "confirm: a failed test ($(@($bad.Keys)[0])) is told, stamps nothing and ends with a failure" -With $bad {
        param($bad)
        Add-Ready
        (Get-StandInTenant).Outbound[0]['IsValidated'] = $false
        Set-StandInValidation @bad -Text '450 4.4.316 Connection refused'
        $run = Invoke-Script 'Confirm-GatepostConnector' -With $quick
        Assert-That ($run.Failed -match '450 4\.4\.316') "what Exchange said, found '$($run.Failed)'"
        Assert-Equal (Get-StandInTenant).Outbound[0].IsValidated 'False' 'no stamp'
        Assert-Equal (Get-RightChange) @('Validate-OutboundConnector') 'nothing is set'
    }
}

Test-Case 'confirm: a mail that goes round, one that failed, one that is pending and one that is not there' {
    Add-Ready
    $twice = @($once) + @($once)
    Add-StandInTrace -TenantId $kit.TenantId -Sender 'a@contoso.com' -Recipient 'b@contoso.com' -MessageId '<loop@contoso.com>' -Event $twice
    Add-StandInTrace -TenantId $kit.TenantId -Sender 'a@contoso.com' -Recipient 'b@contoso.com' -MessageId '<good@contoso.com>' -Event $once
    Add-StandInTrace -TenantId $kit.TenantId -Sender 'a@contoso.com' -Recipient 'b@contoso.com' -MessageId '<fail@contoso.com>' -Status 'Failed'
    Add-StandInTrace -TenantId $kit.TenantId -Sender 'a@contoso.com' -Recipient 'b@contoso.com' -MessageId '<wait@contoso.com>' -Status 'Pending'
    foreach ($pair in @(@('<loop@contoso.com>', 'Looped'), @('<good@contoso.com>', 'Delivered'), @('<fail@contoso.com>', 'Failed'), @('<wait@contoso.com>', 'Pending'), @('<none@contoso.com>', 'Pending'))) {
        $run = Invoke-Good 'Confirm-GatepostConnector' -With @{ MessageId = $pair[0]; WaitMinutes = 0 }
        Assert-Equal @($run.Results | Where-Object { $_.Type -eq 'message' } | ForEach-Object { $_.Action }) @($pair[1]) $pair[0]
    }
    Assert-Equal (Get-Change) @() 'looking changes nothing'
}

Test-Case 'confirm: what mail without the clean-up rule in its trace means is told by the stage' {
    Add-Ready
    $plain = @((New-Event 'Receive' 'Message received'), (New-Event 'Deliver' 'Delivered'))
    Add-StandInTrace -TenantId $kit.TenantId -Sender 'a@contoso.com' -Recipient 'b@contoso.com' -MessageId '<plain@contoso.com>' -Event $plain
    $stages = @(
        @('Stop', 'as it should be: the rule .* is disabled \(stage Stop\)'), @('Audit', 'as it should be: .* \(stage Audit\)'), @('Pilot', 'its sender is not in pilot@contoso.com \(stage Pilot\)'),
        @('Everyone', 'nothing shows that the mail was with Gatepost, though the stage is Everyone')
    )
    foreach ($stage in $stages) {
        $null = Invoke-Good 'Set-GatepostRollout' -With @{ Stage = $stage[0] }
        $run = Invoke-Good 'Confirm-GatepostConnector' -With @{ MessageId = '<plain@contoso.com>'; WaitMinutes = 0 }
        $found = @($run.Results | Where-Object { $_.Type -eq 'message' })
        Assert-Equal @($found | ForEach-Object { $_.Action }) @('Delivered') $stage[0]
        Assert-That ($found[0].Message -match $stage[1]) "$($stage[0]): found '$($found[0].Message)'"
    }
    Set-StandInProperty -Kind Rules -Name 'Back from Gatepost' -Property State -Value 'Disabled'
    $run = Invoke-Good 'Confirm-GatepostConnector' -With @{ MessageId = '<plain@contoso.com>'; WaitMinutes = 0 }
    Assert-That (@($run.Results)[0].Message -match 'nothing in the trace can show') 'without the clean-up rule nobody can tell'
    # The test mail goes by the connector, whatever the stage.
    $null = Invoke-Good 'Set-GatepostRollout' -With @{ Stage = 'Stop' }
    Set-StandInValidation -Event $plain
    $run = Invoke-Good 'Confirm-GatepostConnector' -With ($quick + @{ Again = $true })
    $found = @($run.Results | Where-Object { $_.Type -eq 'message' })
    Assert-That ($found[0].Message -match 'nothing shows that the test mail came back') "found '$($found[0].Message)'"
}

Test-Case 'confirm: the longest look back keeps to the ten days of one query; the limits of the trace hold' {
    Add-Ready
    Add-StandInTrace -TenantId $kit.TenantId -Sender 'a@contoso.com' -Recipient 'b@contoso.com' -MessageId '<old@contoso.com>' -Event $once -Received ([datetime]::UtcNow.AddDays(-9.5))
    $run = Invoke-Good 'Confirm-GatepostConnector' -With @{ MessageId = '<old@contoso.com>'; Hours = 239; WaitMinutes = 0 }
    Assert-Equal @($run.Results | Where-Object { $_.Type -eq 'message' } | ForEach-Object { $_.Action }) @('Delivered') 'a mail of nine days ago'
    $run = Invoke-Good 'Confirm-GatepostConnector' -With @{ MessageId = '<old@contoso.com>'; Hours = 240; WaitMinutes = 0 }
    Assert-Equal @($run.Results | Where-Object { $_.Type -eq 'message' } | ForEach-Object { $_.Action }) @('Delivered') 'the longest look back'
}

Test-Case 'confirm: more rows than a query gives are read page by page' {
    Add-Ready
    $tenant = Get-StandInTenant
    $time = [datetime]::UtcNow.AddMinutes(-30)
    for ($i = 0; $i -lt 5003; $i++) {
        [void]$tenant.Traces.Add([pscustomobject]@{ MessageTraceId = $foreign; MessageId = '<many@contoso.com>'; Received = $time; SenderAddress = 'a@contoso.com'; RecipientAddress = ('r{0:D5}@contoso.com' -f $i); Subject = ''; Status = 'Pending'; FromIP = ''; ToIP = ''; Size = 1; Event = @() })
    }
    $folder = New-WorkFolder
    # Only the reading is of interest here: 5003 details would be past the limit of 100 queries.
    $text = [System.IO.File]::ReadAllText([System.IO.Path]::Combine((Get-Kit), 'Confirm-GatepostConnector.ps1'))
    $ast = [System.Management.Automation.Language.Parser]::ParseInput($text, [ref]$null, [ref]$null)
    $wanted = 'Get-GatepostTrace'
    $function = @($ast.FindAll({ param($node) $node -is [System.Management.Automation.Language.FunctionDefinitionAst] -and $node.Name -eq $wanted }, $true))
    Assert-Equal $function.Count 1 "the function $wanted"
    Set-StandInConnection -TenantId $kit.TenantId
    [System.IO.File]::WriteAllText([System.IO.Path]::Combine($folder, 'part.ps1'), $function[0].Extent.Text + "`n`$script:Doing = ''`n$wanted -Query @{ StartDate = [datetime]::UtcNow.AddHours(-1); EndDate = [datetime]::UtcNow; MessageId = '<many@contoso.com>'; Sender = '*'; RecipientAddress = `$null }")
    $rows = @(& ([System.IO.Path]::Combine($folder, 'part.ps1')))
    Assert-Equal @($rows | ForEach-Object { $_.RecipientAddress } | Sort-Object -Unique).Count 5003 'every recipient once'
    Assert-Equal $rows.Count 5003 'no row twice'
    Assert-That (@(Get-StandInCall -Name 'Get-MessageTraceV2').Count -ge 2) 'in more than one query'
}

Test-Case 'preflight: a tenant that is ready passes and is not changed; before and after the installation' {
    $null = Add-Contoso
    $run = Invoke-Good 'Test-GatepostPreflight'
    Assert-Equal @($run.Results | Where-Object { $_.Action -eq 'Failed' }) @() 'nothing failed'
    Assert-That (@($run.Results | Where-Object { $_.Name -eq 'RejectDirectSend' -and $_.Action -eq 'Advice' }).Count -eq 1) 'the advice about RejectDirectSend'
    $null = Invoke-Good 'Install-GatepostConnector'
    Clear-StandInCall
    $null = Invoke-Good 'Test-GatepostPreflight'
    Assert-Equal (Get-Change) @() 'it changes nothing'
}

# What is put into the tenant, and the result that must come of it: Name, Action.
$obstacles = @(
    @('a tenant that was never opened up', { param($t) $t.OrganizationConfig['IsDehydrated'] = $true }, 'IsDehydrated', 'Failed'),
    @('RejectDirectSend', { param($t) $t.OrganizationConfig['RejectDirectSend'] = $true }, 'RejectDirectSend', 'Passed'),
    @('a foreign rule of our name', { param($t) New-TransportRule -Name 'Route to Gatepost' -PrependSubject 'x' -ErrorAction Stop }, 'Route to Gatepost', 'Failed'),
    @('a foreign connector of our name', { param($t) New-OutboundConnector -Name 'To Gatepost' -ErrorAction Stop }, 'To Gatepost', 'Failed'),
    @('a connector that fits our certificate', { param($t) New-InboundConnector -Name 'Old' -SenderDomains '*' -ConnectorType OnPremises -TlsSenderCertificateName '*.contoso.com' -ErrorAction Stop }, 'Old', 'Failed'),
    @('a hybrid connector', { param($t) New-InboundConnector -Name 'Inbound from 42' -SenderDomains '*' -ConnectorSource HybridWizard -ErrorAction Stop }, 'Inbound from 42', 'Advice'),
    @('a Partner connector that restricts', { param($t) New-InboundConnector -Name 'Gateway' -SenderDomains '*' -RestrictDomainsToIPAddresses $true -SenderIPAddresses '192.0.2.1' -ErrorAction Stop }, 'Gateway', 'Advice'),
    @('a connector for all mail', { param($t) New-OutboundConnector -Name 'Central' -ConnectorType OnPremises -RouteAllMessagesViaOnPremises $true -ErrorAction Stop }, 'Central', 'Advice'),
    @('a rule that routes', { param($t) New-OutboundConnector -Name 'Scanner' -ErrorAction Stop; New-TransportRule -Name 'Scan' -RouteMessageOutboundConnector 'Scanner' -ErrorAction Stop }, 'Scan', 'Advice'),
    @('a rule that stops', { param($t) New-TransportRule -Name 'Stopper' -PrependSubject 'x' -StopRuleProcessing $true -ErrorAction Stop }, 'Stopper', 'Advice'),
    @('a remote domain with TNEF', { param($t) $t.RemoteDomains[0]['TNEFEnabled'] = $true }, 'Default', 'Advice'),
    @('an IP allow list', { param($t) $t.FilterPolicies[0]['IPAllowList'] = @('192.0.2.1') }, 'Default', 'Advice'),
    @('a group that is not there', { param($t) $t.Groups.Clear() }, 'pilot@contoso.com', 'Failed'),
    @('a domain that is not accepted', { param($t) $t.AcceptedDomains = @('contoso.com', 'contoso.onmicrosoft.com') }, 'mail.contoso.com', 'Advice'),
    @('a domain that Gatepost does not know', { param($t) $t.AcceptedDomains = @('contoso.com', 'mail.contoso.com', 'contoso.onmicrosoft.com', 'contoso.de') }, 'contoso.de', 'Advice'),
    @('a certificate name of nobody', { param($t) $t.AcceptedDomains = @('contoso.onmicrosoft.com') }, 'mail.contoso.com', 'Failed')
)
Test-Case 'preflight: each obstacle is found and named' {
    foreach ($row in $obstacles) {
        Reset-StandIn
        $tenant = Add-Contoso
        Set-StandInConnection -TenantId $kit.TenantId
        $null = & $row[1] $tenant
        $before = Get-StandInSnapshot
        Clear-StandInCall
        $run = Invoke-Script 'Test-GatepostPreflight'
        Assert-That (@($run.Results | Where-Object { $_.Name -eq $row[2] -and $_.Action -eq $row[3] }).Count -ge 1) "$($row[0]): $($row[2]) $($row[3]), found $(Get-Action $run)"
        Assert-Equal ([bool]$run.Failed) ($row[3] -eq 'Failed') "$($row[0]): the script ends with a failure exactly when a check failed"
        Assert-Equal (Get-Change) @() "$($row[0]): nothing was changed"
        Assert-Equal (Get-StandInSnapshot) $before "$($row[0]): the tenant"
    }
}

Test-Case 'preflight: a domain below *.contoso.com in accepted_domains is known, and the default domain that is not is told as that' {
    $tenant = Add-Contoso
    $tenant.AcceptedDomains = @('fabrikam.com', 'contoso.com', 'eu.contoso.com', 'mail.contoso.com')
    $run = Invoke-Script 'Test-GatepostPreflight' -With @{ AcceptedDomains = @('*.Contoso.com') }
    $told = @($run.Results | Where-Object { $_.Message -match 'gatepost\.toml lacks' })
    Assert-Equal @($told | ForEach-Object { $_.Name }) @('fabrikam.com') 'the domain that is not known'
    Assert-That ($told[0].Message -match 'default domain') "found '$($told[0].Message)'"
}

# Our certificate's name, a foreign connector's, how the check ends.
$names = @(
    @('*.contoso.com', 'mail.contoso.com', 'Failed'), @('*.contoso.com', '*.contoso.com', 'Failed'), @('*.contoso.com', '*.eu.contoso.com', 'Failed'), @('*.eu.contoso.com', '*.contoso.com', 'Failed'),
    @('mail.contoso.com', '*.contoso.com', 'Failed'), @('mail.contoso.com', 'MAIL.contoso.com', 'Failed'), @('mail.contoso.com', '*.eu.contoso.com', ''), @('mail.contoso.com', 'smtp.contoso.com', ''),
    @('*.contoso.com', 'contoso.com', ''), @('*.contoso.com', 'mail.fabrikam.com', ''), @('contoso.com', '*.contoso.com', '')
)
Test-Case 'preflight: a foreign connector whose certificate name meets ours, also by a wildcard on either side' {
    foreach ($row in $names) {
        foreach ($source in 'Default', 'HybridWizard') {
            Reset-StandIn
            $null = Add-Contoso
            Set-StandInConnection -TenantId $kit.TenantId
            New-InboundConnector -Name 'Theirs' -SenderDomains '*' -ConnectorType OnPremises -ConnectorSource $source -TlsSenderCertificateName $row[1] -ErrorAction Stop | Out-Null
            $run = Invoke-Script 'Test-GatepostPreflight' -With @{ TlsSenderCertificateName = $row[0] }
            $found = @($run.Results | Where-Object { $_.Name -eq 'Theirs' })
            $wanted = $row[2]
            # Of the hybrid wizard's it only tells, unless it takes the place of ours.
            $isWide = $row[1].StartsWith('*.') -and $row[0] -like $row[1]
            if ($source -eq 'HybridWizard' -and ($wanted -eq '' -or $isWide -or ($row[0].StartsWith('*.') -and $row[0] -ne $row[1] -and $row[1] -like $row[0]))) { $wanted = 'Advice' }
            Assert-Equal (@($found | ForEach-Object { $_.Action }) -join ',') $wanted "$source, ours $($row[0]), theirs $($row[1])"
            Assert-Equal (@($found | Where-Object { $_.Message -match 'may take that connector.*outside that wildcard, in another accepted domain' }).Count -eq 1) ($isWide -and $source -eq 'HybridWizard') "$source, ours $($row[0]), theirs $($row[1]): the way out"
            # What fails has a way out as well.
            foreach ($one in @($found | Where-Object { $_.Action -eq 'Failed' })) { Assert-That ($one.Message -match 'a certificate with a name of its own|Add the name of Gatepost''s certificate itself') "$source, ours $($row[0]), theirs $($row[1]): the way out of a failure, found '$($one.Message)'" }
        }
    }
}

# What a rule before ours does with the loop header; what is told of it, '' for nothing.
$strips = @(
    @('takes it off', @{ RemoveHeader = 'x-contoso-loop' }, '^takes X-Contoso-Loop off, and stands before ours \(priority 0\): .* loses its mark .* until a hop limit'),
    @('sets it', @{ SetHeaderName = 'x-contoso-loop'; SetHeaderValue = 'x' }, '^sets X-Contoso-Loop, and stands before ours \(priority 0\): with our value, .* never reaches Gatepost; with another, .* until a hop limit'),
    @('takes it off, of mail from outside', @{ RemoveHeader = 'X-Contoso-Loop'; FromScope = 'NotInOrganization' }, ''),
    @('would take it off', @{ RemoveHeader = 'X-Contoso-Loop'; Mode = 'Audit' }, ''),
    @('takes it off, disabled', @{ RemoveHeader = 'X-Contoso-Loop'; Enabled = $false }, ''),
    @('took it off', @{ RemoveHeader = 'X-Contoso-Loop'; ExpiryDate = [datetime]::UtcNow.AddDays(-1) }, ''),
    @('routed and stopped', @{ RouteMessageOutboundConnector = 'To Gatepost'; StopRuleProcessing = $true; ExpiryDate = [datetime]::UtcNow.AddDays(-1) }, ''),
    @('takes another off', @{ RemoveHeader = 'X-Other' }, ''),
    @('takes it off and stops', @{ RemoveHeader = 'X-Contoso-Loop'; StopRuleProcessing = $true }, '^stops the rules behind it and takes X-Contoso-Loop off, and stands before ours \(priority 0\): such mail never reaches Gatepost$')
)
foreach ($strip in $strips) {
    Test-Case "preflight: a rule before ours, by what it does with the loop header: $($strip[0])" -With $strip {
        param($strip)
        Add-Ready
        Set-StandInConnection -TenantId $kit.TenantId
        $with = $strip[1]
        New-TransportRule -Name 'Strip' -Priority 0 @with -ErrorAction Stop | Out-Null
        $found = @((Invoke-Good 'Test-GatepostPreflight').Results | Where-Object { $_.Name -eq 'Strip' })
        if (-not $strip[2]) { Assert-Equal $found @() 'nothing' } else { Assert-That ($found.Count -eq 1 -and $found[0].Action -eq 'Advice' -and $found[0].Message -match $strip[2]) "advice, found $($found | ForEach-Object { "$($_.Action) $($_.Message)" })" }
        # Behind ours it does no harm to mail that goes to Gatepost.
        Set-StandInProperty -Kind Rules -Name 'Strip' -Property Priority -Value 2
        $found = @((Invoke-Good 'Test-GatepostPreflight').Results | Where-Object { $_.Name -eq 'Strip' -and $_.Message -match 'hop limit|never reaches' })
        Assert-Equal $found @() 'behind ours'
    }
}
Test-Case 'preflight: a rule that takes the loop header off under another name is told before Install refuses it' {
    $null = Add-Contoso
    Set-StandInConnection -TenantId $kit.TenantId
    New-TransportRule -Name 'Strip' -RemoveHeader 'X-Contoso-Loop' -Enabled $false -ErrorAction Stop | Out-Null
    $run = Invoke-Script 'Test-GatepostPreflight'
    Assert-Equal @($run.Results | Where-Object { $_.Action -eq 'Failed' } | ForEach-Object { $_.Name }) @('Strip') 'the rule'
    Assert-That ((Invoke-Script 'Install-GatepostConnector').Failed -match "'Strip'") 'as Install has it'
}

Test-Case 'preflight: of a rule that takes the loop header off elsewhere, it and Install name -Force, which makes ours beside it' {
    foreach ($row in @(@(@{ FromScope = 'NotInOrganization' }, $true), @(@{ Enabled = $false }, $true), @(@{ ExpiryDate = [datetime]::UtcNow.AddDays(-1) }, $true), @(@{ Mode = 'Audit' }, $true), @(@{ FromScope = 'InOrganization' }, $false))) {
        $tenant = Add-Contoso
        Set-StandInConnection -TenantId $kit.TenantId
        $with = $row[0]
        New-TransportRule -Name 'Strip' -RemoveHeader 'X-Contoso-Loop' @with -ErrorAction Stop | Out-Null
        $told = @((Invoke-Script 'Test-GatepostPreflight').Results | Where-Object { $_.Name -eq 'Strip' })
        Assert-Equal @($told.Count, $told[0].Action, ($told[0].Message -match '-Force makes ours beside it')) @(1, 'Failed', $row[1]) "$($with.Values): preflight, found '$($told[0].Message)'"
        $run = Invoke-Script 'Install-GatepostConnector'
        Assert-Equal @([bool]$run.Failed, ($run.Failed -match '-Force makes ours beside it')) @($true, $row[1]) "$($with.Values): Install, found '$($run.Failed)'"
        $null = Invoke-Good 'Install-GatepostConnector' -With @{ Force = $true }
        Assert-Equal $tenant.Rules.Count 3 "$($with.Values): ours beside it"
        Reset-StandIn
    }
}

Test-Case 'preflight: what -Force refuses is told as that, and -Force is recommended for nothing else' {
    foreach ($row in @(
            @({ New-InboundConnector -Name 'From Gatepost' -SenderDomains 'fabrikam.com' -ErrorAction Stop }, 'From Gatepost', $true), @({ New-InboundConnector -Name 'From Gatepost' -SenderDomains 'fabrikam.com' -Enabled $false -ErrorAction Stop }, 'From Gatepost', $false),
            @({ New-OutboundConnector -Name 'To Gatepost' -RecipientDomains 'fabrikam.com' -ErrorAction Stop }, 'To Gatepost', $true), @({ New-OutboundConnector -Name 'To Gatepost' -IsTransportRuleScoped $true -ErrorAction Stop }, 'To Gatepost', $false),
            @({ New-OutboundConnector -Name 'To Gatepost' -IsTransportRuleScoped $true -ErrorAction Stop; New-TransportRule -Name 'Bob' -RouteMessageOutboundConnector 'To Gatepost' -ErrorAction Stop }, 'To Gatepost', $true),
            @({ New-TransportRule -Name 'Back from Gatepost' -PrependSubject 'x' -ErrorAction Stop }, 'Back from Gatepost', $true), @({ New-TransportRule -Name 'Back from Gatepost' -PrependSubject 'x' -Mode Audit -ErrorAction Stop }, 'Back from Gatepost', $false),
            @({ New-TransportRule -Name 'Back from Gatepost' -HeaderContainsMessageHeader 'X-Contoso-Loop' -HeaderContainsWords $loopValue -RemoveHeader 'X-Contoso-Loop' -StopRuleProcessing $true -PrependSubject 'x' -ErrorAction Stop }, 'Back from Gatepost', $false),
            @({ New-TransportRule -Name 'Route to Gatepost' -PrependSubject 'x' -ErrorAction Stop }, 'Route to Gatepost', $false))) {
        $null = Add-Contoso
        Set-StandInConnection -TenantId $kit.TenantId
        $null = & $row[0]
        $told = @((Invoke-Script 'Test-GatepostPreflight').Results | Where-Object { $_.Name -eq $row[1] })
        Assert-Equal @($told.Count, $told[0].Action, ($told[0].Message -match '-Force'), ($told[0].Message -match 'nothing to take over\. .*choose another name')) @(1, 'Failed', (-not $row[2]), $row[2]) "$($row[0]): found '$($told[0].Message)'"
        Assert-Equal ([bool](Invoke-Script 'Install-GatepostConnector' -With @{ Force = $true }).Failed) $row[2] "$($row[0]): as Install has it"
        Reset-StandIn
    }
}

Test-Case 'preflight: what Install would not make one beside is told before' {
    foreach ($installed in $false, $true) {
        Reset-StandIn
        $null = Add-Contoso
        if ($installed) { $null = Invoke-Good 'Install-GatepostConnector' }
        Set-StandInConnection -TenantId $kit.TenantId
        New-InboundConnector -Name 'In' -SenderDomains '*' -ConnectorType OnPremises -TlsSenderCertificateName 'mail.contoso.com' -Enabled $false -ErrorAction Stop | Out-Null
        New-OutboundConnector -Name 'Out' -ConnectorType OnPremises -UseMXRecord $false -SmartHosts 'mx1.gatepost.example' -ErrorAction Stop | Out-Null
        $run = Invoke-Script 'Test-GatepostPreflight'
        $found = @($run.Results | Where-Object { 'In', 'Out' -contains $_.Name } | ForEach-Object { "$($_.Name) $($_.Action)" })
        $wanted = @('In Failed', 'Out Failed')
        if ($installed) { $wanted = @('Out Advice') }
        Assert-Equal $found $wanted "installed $installed"
    }
}

Test-Case 'export: the files that diff reads, with test-mode connectors, for the owner alone, never over others' {
    Add-Ready
    Set-StandInProperty -Kind Outbound -Name 'To Gatepost' -Property TestMode -Value $true
    $folder = [System.IO.Path]::Combine((New-WorkFolder), 'state')
    $run = Invoke-Good 'Export-GatepostState' -With @{ Folder = $folder }
    Assert-Equal (Get-Change) @() 'it changes nothing'
    foreach ($name in 'Export', 'AcceptedDomain', 'ArcConfig', 'InboundConnector', 'OrganizationConfig', 'OutboundConnector', 'TransportRule') {
        $path = [System.IO.Path]::Combine($folder, "$name.json")
        Assert-That ([System.IO.File]::ReadAllText($path).TrimStart().StartsWith('[')) "$name.json is a list also with one member"
        Assert-Equal ([string](Get-Item -LiteralPath $path).UnixFileMode) 'UserWrite, UserRead' "the mode of $name.json"
        Assert-That ([System.IO.File]::ReadAllBytes($path)[0] -ne 0xEF) "$name.json has no mark at its start"
    }
    $outbound = [System.IO.File]::ReadAllText([System.IO.Path]::Combine($folder, 'OutboundConnector.json')) | ConvertFrom-Json
    Assert-Equal @($outbound | ForEach-Object { "$($_.Name) $($_.TestMode)" }) @('To Gatepost True') 'the connector in test mode'
    $export = [System.IO.File]::ReadAllText([System.IO.Path]::Combine($folder, 'Export.json'))
    Assert-That ($export -match '"Time":\s+"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"' -and $export -match $kit.TenantId) "the time and the tenant of the export, found '$export'"
    $rules = [System.IO.File]::ReadAllText([System.IO.Path]::Combine($folder, 'TransportRule.json')) | ConvertFrom-Json
    Assert-Equal @(@($rules)[0].ExceptIfHeaderContainsWords) @($loopValue) 'word lists are whole'
    $xml = [System.Text.Encoding]::Unicode.GetString([System.IO.File]::ReadAllBytes([System.IO.Path]::Combine($folder, 'TransportRuleCollection.xml')))
    Assert-That ($xml -match '<rule name="Route to Gatepost"') 'the rule collection'
    $run = Invoke-Script 'Export-GatepostState' -With @{ Folder = $folder }
    Assert-That ($run.Failed -match 'already there') "a second run into the folder is refused, found '$($run.Failed)'"
}

Test-Case 'secrets: in no stream, no error and no transcript of any script, also when Exchange repeats them' {
    $folder = New-Kit
    Set-KitSecret -Folder $folder -OldSecret $oldSecret -OldLoop $oldLoop
    $shown = "$secretValue|$loopValue|$oldSecret|$oldLoop"
    $log = [System.IO.Path]::Combine((New-WorkFolder), 'transcript.txt')
    Add-Ready
    $null = Start-Transcript -LiteralPath $log
    try {
        Set-StandInProperty -Kind Rules -Name 'Route to Gatepost' -Property SetHeaderValue -Value $oldSecret
        Set-StandInProperty -Kind Rules -Name 'Back from Gatepost' -Property HeaderContainsWords -Value @($oldLoop)
        foreach ($step in @(
                @('Install-GatepostConnector', @{}, $true), @('Repair-GatepostConnector', @{}, $true), @('Update-GatepostSecret', @{ Stage = 'Both' }, $true), @('Update-GatepostSecret', @{ Stage = 'Both' }, $false),
                @('Set-GatepostRollout', @{ Stage = 'Audit' }, $false), @('Test-GatepostPreflight', @{}, $false), @('Export-GatepostState', @{ Folder = [System.IO.Path]::Combine((New-WorkFolder), 's') }, $false), @('Remove-GatepostConnector', @{}, $true))) {
            $run = Invoke-Good $step[0] -With $step[1] -Preview:$step[2] -Folder $folder
            Assert-That ($run.Text -notmatch $shown) "$($step[0]) shows no secret"
        }
    } finally { $null = Stop-Transcript }
    $text = [System.IO.File]::ReadAllText($log)
    Assert-That ($text -match 'What if') 'the transcript holds what was written to the host'
    Assert-That ($text -notmatch $shown) 'and no secret'
    # An answer of Exchange that repeats what it was given. (A transcript holds such an answer before any script can take it.)
    foreach ($step in @(@('Install-GatepostConnector', @{}), @('Repair-GatepostConnector', @{}), @('Update-GatepostSecret', @{ Stage = 'NewOnly' }))) {
        Set-StandInProperty -Kind Rules -Name 'Route to Gatepost' -Property StopRuleProcessing -Value $false
        Set-StandInFault -Cmdlet 'Set-TransportRule' -Message "The value '$secretValue' or '$loopValue' or '$oldLoop' is not allowed"
        $run = Invoke-Script $step[0] -With $step[1] -Folder $folder
        Assert-That ($run.Failed -match 'is not allowed') "$($step[0]) tells the answer, found '$($run.Failed)'"
        Assert-That ($run.Text -notmatch $shown) "$($step[0]) shows no secret of the answer"
        Assert-That (((@($Error) | ForEach-Object { [string]$_ }) -join "`n") -notmatch $shown) "$($step[0]) leaves none in `$Error"
    }
}
