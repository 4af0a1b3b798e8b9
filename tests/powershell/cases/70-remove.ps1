# Remove-GatepostConnector, Set-GatepostArcSealer, Set-GatepostEnhancedFiltering.

# Objects that are none of ours.
function Add-Other {
    Set-StandInConnection -TenantId $kit.TenantId
    New-InboundConnector -Name 'Inbound from 42' -SenderDomains '*' -ConnectorSource HybridWizard -ErrorAction Stop | Out-Null
    New-OutboundConnector -Name 'Outbound to 42' -RecipientDomains 'contoso.com' -ConnectorSource HybridWizard -ErrorAction Stop | Out-Null
    New-OutboundConnector -Name 'Scanner' -RecipientDomains 'fabrikam.com' -ErrorAction Stop | Out-Null
    New-TransportRule -Name 'Other' -FromScope InOrganization -RouteMessageOutboundConnector 'Scanner' -ErrorAction Stop | Out-Null
    (Get-StandInTenant).Arc = @('fabrikam.com')
}

Test-Case 'remove: what was installed goes and the rest stays as it was; a second run changes nothing' {
    $null = Add-Contoso
    Add-Other
    $before = Get-StandInSnapshot
    $null = Invoke-Good 'Install-GatepostConnector'
    $null = Invoke-Good 'Set-GatepostRollout' -With @{ Stage = 'Everyone'; Force = $true }
    $null = Invoke-Good 'Set-GatepostArcSealer' -With @{ Domain = 'gatepost.example' }
    Clear-StandInCall
    $run = Invoke-Good 'Remove-GatepostConnector' -With @{ ArcSealer = 'gatepost.example' }
    Assert-Equal (Get-StandInSnapshot) $before 'the tenant is as it was before the installation'
    Assert-Equal (Get-RightChange) @('Disable-TransportRule', 'Remove-TransportRule', 'Remove-TransportRule', 'Remove-OutboundConnector', 'Remove-InboundConnector', 'Set-ArcConfig') 'the order: no more mail, the rules, outbound, inbound last'
    Clear-StandInCall
    $run = Invoke-Good 'Remove-GatepostConnector' -With @{ ArcSealer = 'gatepost.example' }
    Assert-Equal (Get-Change) @() 'a second run changes nothing'
    Assert-Equal @($run.Results | ForEach-Object { $_.Action } | Sort-Object -Unique) @('Unchanged') 'and says so'
}

Test-Case 'remove: -WhatIf changes nothing and says all that would go' {
    Add-Ready
    Set-StandInProperty -Kind Rules -Name 'Route to Gatepost' -Property State -Value 'Enabled'
    $before = Get-StandInSnapshot
    $run = Invoke-Good 'Remove-GatepostConnector' -Preview
    Assert-Equal (Get-Change) @() 'no call that changes the tenant'
    Assert-Equal (Get-StandInSnapshot) $before 'the tenant'
    foreach ($name in 'Route to Gatepost', 'Back from Gatepost', 'To Gatepost', 'From Gatepost') { Assert-That ((Get-Action $run) -contains "${name}: WouldRemove") "$name is told, found $(Get-Action $run)" }
    Assert-Equal @(Get-ChildItem -LiteralPath $run.Folder) @() 'no export'
}

Test-Case 'remove: objects of our names that are not ours stay' {
    Add-Ready
    $tenant = Get-StandInTenant
    foreach ($pair in @(@('Inbound', 'From Gatepost', 'Comment'), @('Outbound', 'To Gatepost', 'Comment'), @('Rules', 'Route to Gatepost', 'Comments'), @('Rules', 'Back from Gatepost', 'Comments'))) { Set-StandInProperty -Kind $pair[0] -Name $pair[1] -Property $pair[2] -Value 'theirs' }
    $before = Get-StandInSnapshot
    $run = Invoke-Good 'Remove-GatepostConnector'
    Assert-Equal (Get-Change) @() 'no call that changes the tenant'
    Assert-Equal (Get-StandInSnapshot) $before 'the tenant'
    Assert-That ($run.Warnings.Count -ge 4) "a warning for each, found $($run.Warnings.Count)"
    Assert-Equal $tenant.Rules.Count 2 'both rules'
}

Test-Case 'remove: a rule of others that sends to our connector is named, and nothing is changed' {
    Add-Ready
    Set-StandInConnection -TenantId $kit.TenantId
    New-TransportRule -Name 'Theirs' -FromScope InOrganization -RouteMessageOutboundConnector 'To Gatepost' -ErrorAction Stop | Out-Null
    Clear-StandInCall
    $run = Invoke-Script 'Remove-GatepostConnector'
    Assert-That ($run.Failed -match 'Theirs') "a refusal, found '$($run.Failed)'"
    Assert-Equal (Get-Change) @() 'nothing was changed'
}

Test-Case 'remove: while mail is pending the rule is disabled and all else stays; without it, or with -WaitMinutes 0, all goes' {
    Add-Ready
    $tenant = Get-StandInTenant
    Set-StandInProperty -Kind Rules -Name 'Route to Gatepost' -Property State -Value 'Enabled'
    Add-StandInTrace -TenantId $kit.TenantId -Sender 'user@contoso.com' -Recipient 'a@example.net' -Status 'Pending'
    $run = Invoke-Script 'Remove-GatepostConnector' -With @{ WaitMinutes = 1; PollSeconds = 600 }
    Assert-That ($run.Failed -match 'pending') "a refusal, found '$($run.Failed)'"
    Assert-Equal (Get-RightChange) @('Disable-TransportRule') 'the rule is disabled'
    Assert-Equal @($tenant.Inbound.Count, $tenant.Outbound.Count, $tenant.Rules.Count) @(1, 1, 2) 'all else stays'
    $null = Invoke-Good 'Remove-GatepostConnector' -With @{ WaitMinutes = 0 }
    Assert-Equal @($tenant.Inbound.Count, $tenant.Outbound.Count, $tenant.Rules.Count) @(0, 0, 0) 'all is gone'
}

Test-Case 'remove: a connector in test mode, which Exchange hides, goes as well' {
    Add-Ready
    $tenant = Get-StandInTenant
    Set-StandInProperty -Kind Outbound -Name 'To Gatepost' -Property TestMode -Value $true
    $null = Invoke-Good 'Remove-GatepostConnector'
    Assert-Equal @($tenant.Inbound.Count, $tenant.Outbound.Count, $tenant.Rules.Count) @(0, 0, 0) 'all is gone'
}

Test-Case 'remove: -KeepInboundConnector keeps it and the rule that takes the loop header off; later both go' {
    Add-Ready
    $tenant = Get-StandInTenant
    $null = Invoke-Good 'Remove-GatepostConnector' -With @{ KeepInboundConnector = $true }
    Assert-Equal @($tenant.Inbound.Count, $tenant.Outbound.Count, (@($tenant.Rules | ForEach-Object { $_.Name }) -join ',')) @(1, 0, 'Back from Gatepost') 'what applications need is left'
    $null = Invoke-Good 'Remove-GatepostConnector'
    Assert-Equal @($tenant.Inbound.Count, $tenant.Outbound.Count, $tenant.Rules.Count) @(0, 0, 0) 'all is gone'
}

Test-Case 'arc: ours is added to the sealers of others and taken off alone; empty is written as a blank; nothing twice' {
    Add-Ready
    $tenant = Get-StandInTenant
    $tenant.Arc = @('fabrikam.com', 'cohovineyard.com')
    $run = Invoke-Good 'Set-GatepostArcSealer' -With @{ Domain = 'gatepost.example' } -Preview
    Assert-Equal (Get-Change) @() '-WhatIf changes nothing'
    Assert-Equal (Get-Action $run) @('Default: WouldUpdate') '-WhatIf says what it would'
    $null = Invoke-Good 'Set-GatepostArcSealer' -With @{ Domain = 'gatepost.example' }
    Assert-Equal $tenant.Arc @('fabrikam.com', 'cohovineyard.com', 'gatepost.example') 'the list'
    Clear-StandInCall
    $null = Invoke-Good 'Set-GatepostArcSealer' -With @{ Domain = 'GATEPOST.example' }
    Assert-Equal (Get-Change) @() 'it is there already'
    $null = Invoke-Good 'Set-GatepostArcSealer' -With @{ Domain = 'gatepost.example'; Remove = $true }
    Assert-Equal $tenant.Arc @('fabrikam.com', 'cohovineyard.com') 'the others stay'
    $tenant.Arc = @('gatepost.example')
    $null = Invoke-Good 'Set-GatepostArcSealer' -With @{ Domain = 'gatepost.example'; Remove = $true }
    Assert-Equal $tenant.Arc @() 'the list is empty'
    Clear-StandInCall
    $null = Invoke-Good 'Set-GatepostArcSealer' -With @{ Domain = 'gatepost.example'; Remove = $true }
    Assert-Equal (Get-Change) @() 'it is absent already'
}

Test-Case 'filtering: SkipLastIP, SkipIPs with a test user, Off; a second run changes nothing; a private address is refused by Exchange' {
    Add-Ready
    $inbound = (Get-StandInTenant).Inbound[0]
    $right = Get-StandInSnapshot
    $null = Invoke-Good 'Set-GatepostEnhancedFiltering' -With @{ Mode = 'SkipLastIP' } -Preview
    Assert-Equal (Get-Change) @() '-WhatIf changes nothing'
    $null = Invoke-Good 'Set-GatepostEnhancedFiltering' -With @{ Mode = 'SkipLastIP' }
    Assert-Equal @($inbound.EFSkipLastIP, @($inbound.EFSkipIPs).Count) @('True', '0') 'SkipLastIP'
    Clear-StandInCall
    $null = Invoke-Good 'Set-GatepostEnhancedFiltering' -With @{ Mode = 'SkipLastIP' }
    $null = Invoke-Good 'Install-GatepostConnector'
    Assert-Equal (Get-Change) @() 'a second run, and the installation, change nothing'
    $null = Invoke-Good 'Set-GatepostEnhancedFiltering' -With @{ Mode = 'SkipIPs'; SkipAddress = '192.0.2.10', '198.51.100.0/24'; TestUser = 'admin@contoso.com' }
    Assert-Equal @($inbound.EFSkipLastIP, (@($inbound.EFSkipIPs) -join ','), (@($inbound.EFUsers) -join ',')) @('False', '192.0.2.10,198.51.100.0/24', 'admin@contoso.com') 'SkipIPs'
    $run = Invoke-Script 'Set-GatepostEnhancedFiltering' -With @{ Mode = 'SkipIPs'; SkipAddress = '10.0.0.1' }
    Assert-That ($run.Failed -match '10\.0\.0\.1') "a refusal, found '$($run.Failed)'"
    $null = Invoke-Good 'Set-GatepostEnhancedFiltering' -With @{ Mode = 'Off' }
    Assert-Equal (Get-StandInSnapshot) $right 'Off is as before'
}
